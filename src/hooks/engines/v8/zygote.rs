//! The zygote, from which all workers are forked, and the spare workers.
//!
//! It starts with the first hook, and again if it ends. A run takes a spare worker, and another one is forked while the
//! change is written to disk.

use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::frames::{Kind, receive};
use super::process::Process;
use super::socket::Socket;
use super::worker::{FORK_ONLY, ICU_FILE, LIBRARY_FILE};
use crate::config::V8Reset;

/// Spare workers. Each has about 2 MiB of private memory.
const SPARES_MAX: usize = 4;

/// Loading V8 takes 30 ms when nothing else runs.
const START_MAX: Duration = Duration::from_secs(30);

/// Attempts to create one worker.
const TRIES_MAX: usize = 3;

/// A fork takes less than a millisecond when nothing else runs.
const FORK_MAX: Duration = Duration::from_secs(10);

/// Creates workers when they are needed or a little earlier.
pub(super) struct Nursery {
    folder: PathBuf,
    reset: V8Reset,
    /// Whether workers restore their memory, once one was started.
    restores_memory: OnceLock<bool>,
    zygote: tokio::sync::Mutex<Option<Arc<Zygote>>>,
    spares: Mutex<Spares>,
}

#[derive(Default)]
struct Spares {
    ready: Vec<Process>,
    making: usize,
}

impl Nursery {
    /// `folder` contains the library.
    pub(super) fn new(folder: PathBuf, reset: V8Reset) -> Arc<Self> {
        Arc::new(Nursery {
            folder,
            reset,
            restores_memory: OnceLock::new(),
            zygote: tokio::sync::Mutex::new(None),
            spares: Mutex::default(),
        })
    }

    /// Whether workers restore their memory after a run; `None` before the first worker.
    pub(super) fn restores_memory(&self) -> Option<bool> {
        self.restores_memory.get().copied()
    }

    /// Checks that the library exists; the error says what to do.
    pub(super) fn check(&self) -> Result<(), String> {
        let missing = [LIBRARY_FILE, ICU_FILE].into_iter().find(|file| !self.folder.join(file).is_file());
        missing.map_or(Ok(()), |file| {
            Err(format!(
                "the engine `v8` needs V8 as a library, and `{}` is not there; run `cargo xtask v8`, which fetches it, or \
                 bind the same source with `engine: \"quickjs\"`",
                self.folder.join(file).display()
            ))
        })
    }

    /// An unused worker.
    pub(super) async fn worker(self: &Arc<Self>) -> Result<Process, String> {
        let spare = self.spares().ready.pop();
        let worker = match spare {
            Some(spare) => Ok(spare),
            None => self.fork().await,
        };
        self.refill();
        worker
    }

    fn refill(self: &Arc<Self>) {
        {
            let mut spares = self.spares();
            if spares.ready.len() + spares.making >= SPARES_MAX {
                return;
            }
            spares.making += 1;
        }
        let nursery = Arc::clone(self);
        tokio::spawn(async move {
            let made = nursery.fork().await;
            let mut spares = nursery.spares();
            spares.making -= 1;
            // Errors show in the runs that create their workers themselves.
            spares.ready.extend(made);
        });
    }

    /// A zygote that has ended is replaced. This may be detected only at the second attempt.
    async fn fork(&self) -> Result<Process, String> {
        let mut tried = self.try_fork().await;
        for _ in 1..TRIES_MAX {
            if tried.is_ok() {
                break;
            }
            tried = self.try_fork().await;
        }
        tried
    }

    async fn try_fork(&self) -> Result<Process, String> {
        let zygote = self.zygote().await?;
        let message = match tokio::time::timeout(FORK_MAX, zygote.fork()).await {
            Ok(Ok(process)) => return Ok(process),
            // All workers end with the zygote, also running ones, so a temporary shortage of descriptors or processes
            // must not end it.
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(format!("no V8 worker could be created: {error}"));
            }
            Ok(Err(_)) => "the process that V8 workers are created from has ended".to_owned(),
            Err(_) => format!("no V8 worker could be created within {} s", FORK_MAX.as_secs()),
        };
        // Another one is started for the next attempt.
        let mut present = self.zygote.lock().await;
        if present.as_ref().is_some_and(|present| Arc::ptr_eq(present, &zygote)) {
            *present = None;
        }
        Err(message)
    }

    /// The zygote; started if there is none.
    async fn zygote(&self) -> Result<Arc<Zygote>, String> {
        let mut present = self.zygote.lock().await;
        if let Some(zygote) = &*present {
            return Ok(Arc::clone(zygote));
        }
        self.check()?;
        let started = tokio::time::timeout(START_MAX, Zygote::start(&self.folder, self.reset)).await;
        let started = started.unwrap_or_else(|_| Err(format!("V8 was not ready within {} s", START_MAX.as_secs())));
        let (zygote, restores_memory) = started?;
        self.restores_memory.get_or_init(|| {
            match (self.reset, restores_memory) {
                (_, true) => tracing::info!("V8: the memory of its processes is restored after each call"),
                (V8Reset::Fork, false) => {
                    tracing::info!("V8: each call has a process of its own, as `hooks.v8.reset` says")
                }
                (V8Reset::Auto, false) => tracing::info!(
                    "V8: each call has a process of its own, since this kernel or machine cannot report what a call \
                     has written (Linux 6.11 on x86-64 can)"
                ),
            }
            restores_memory
        });
        let zygote = Arc::new(zygote);
        *present = Some(Arc::clone(&zygote));
        Ok(zygote)
    }

    /// Ends the zygote and all spare workers.
    #[cfg(test)]
    pub(super) async fn end_zygote(&self) {
        let Some(zygote) = self.zygote.lock().await.clone() else { return };
        while self.spares().making > 0 {
            tokio::task::yield_now().await;
        }
        let _ = rustix::process::kill_process(zygote.pid(), rustix::process::Signal::KILL);
        let workers: Vec<i32> = self.spares().ready.iter().map(Process::pid).collect();
        let is_alive = |pid: &i32| {
            // A zombie has closed its sockets.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        while workers.iter().any(is_alive) {
            tokio::task::yield_now().await;
        }
    }

    fn spares(&self) -> MutexGuard<'_, Spares> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running process. It ends when its socket is closed, so also if the server crashes; its workers end with it.
struct Zygote {
    control: UnixStream,
    child: Option<Child>,
}

impl Zygote {
    /// And whether the workers that it forks restore their memory.
    async fn start(folder: &Path, reset: V8Reset) -> Result<(Zygote, bool), String> {
        let failed = |error: io::Error| format!("the V8 worker could not be started: {error}");
        let (control, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = command(folder);
        if reset == V8Reset::Fork {
            command.env(FORK_ONLY, "1");
        }
        let child = command
            .env("TZ", "UTC")
            // Otherwise each run would return the same freed memory to the kernel, because each starts from the same
            // state.
            .env("MIMALLOC_PURGE_DELAY", "-1")
            // In KiB: the kernel scans all of it after each run.
            .env("MIMALLOC_ARENA_RESERVE", "65536")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut zygote = Zygote { control, child: Some(child) };
        let ours = zygote.control.try_clone().map_err(failed)?;
        let mut stream = Socket::new(ours).map_err(failed)?;
        match receive(&mut stream).await.map_err(failed)? {
            Some(mut frame) if frame.kind == Kind::Ready => {
                let told = frame.number().and_then(|_| frame.byte()).map_err(failed)?;
                Ok((zygote, told != 0))
            }
            Some(mut frame) => {
                let message = frame.text().unwrap_or_default();
                Err(format!("the V8 worker could not be started: {message}"))
            }
            None => Err(format!("the V8 worker ended while it was started: {}", zygote.last_words())),
        }
    }

    async fn fork(&self) -> io::Result<Process> {
        let (ours, theirs) = UnixStream::pair()?;
        let (errors, their_errors) = io::pipe()?;
        let descriptors = [theirs.as_fd(), their_errors.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut message = SendAncillaryBuffer::new(&mut space);
        message.push(SendAncillaryMessage::ScmRights(&descriptors));
        // One byte, because descriptors cannot be sent without data.
        sendmsg(&self.control, &[IoSlice::new(&[0])], &mut message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        drop((theirs, their_errors));
        Process::meet(Socket::new(ours)?, errors).await
    }

    #[cfg(test)]
    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().expect("a child until it is dropped"))
    }

    fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        if let Some(errors) = self.child.as_mut().and_then(|child| child.stderr.take()) {
            // The process has closed its socket, so it has ended or is ending.
            let _ = errors.take(1024).read_to_end(&mut words);
        }
        String::from_utf8_lossy(&words).trim().to_owned()
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        // The kernel needs a moment to tear down V8's address space, and the process must be reaped.
        let _ = std::thread::Builder::new().name("v8-reaper".into()).spawn(move || child.wait());
    }
}

/// This program, started as a worker.
#[cfg(not(test))]
fn command(folder: &Path) -> Command {
    // Works also after the file was replaced by a newer version.
    let mut command = Command::new("/proc/self/exe");
    command.env_clear().arg("v8-worker").arg(folder);
    command
}

/// In the tests this program is the test binary, in which one test is the worker.
#[cfg(test)]
fn command(folder: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env_clear().env(super::tests::WORKER_FOLDER, folder);
    command.args([super::tests::WORKER_TEST, "--exact", "--nocapture", "--test-threads=1"]);
    command
}

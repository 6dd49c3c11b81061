//! Runs one program from start to end and leaves nothing behind.
//!
//! However the run ends (normally, at a limit, or because the call was abandoned), all its processes are killed before
//! the program is reaped, and then the directory is removed.

use std::future::Future;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::super::super::access::{AccessCode, AccessError};
use super::super::super::host_call::{ProcessCommand, ProcessOutput};
use super::child::{self, StartError, StartStep, Started};
use super::ending::{kill, reap, wait};
use super::keeper::Keeper;
use super::sandbox::{self, DISK_BYTES_MAX, DISK_DEPTH_MAX, DISK_ENTRIES_MAX, PROCESSES_MAX, Workspace};
use crate::config::{ProcessGrant, format_duration, format_size};
use crate::hooks::fair::{self, FairSemaphore, Share};

/// How many programs all hooks together may run at once.
const RUNS_MAX: usize = 16;

/// Time for starting and cleaning up, in addition to the program's own time.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// How often memory and disk use are checked.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// Runs programs.
pub struct Processes {
    places: FairSemaphore,
    /// Whether to try to use namespaces.
    namespaces: bool,
    launcher: OnceLock<io::Result<mpsc::Sender<Job>>>,
}

impl Default for Processes {
    fn default() -> Self {
        Processes {
            places: FairSemaphore::new(RUNS_MAX, Share::LeavesSome),
            namespaces: true,
            launcher: OnceLock::new(),
        }
    }
}

/// A program to start, and the channel of its waiter.
type Job = (child::Plan, oneshot::Sender<Result<Running, StartError>>);

impl Processes {
    /// Removes leftovers of servers that were killed while a program ran.
    pub(in crate::hooks) fn clean_up() {
        let cleaned = std::thread::Builder::new().name("snaphook-cleaner".to_owned()).spawn(sandbox::remove_stale);
        if let Err(error) = cleaned {
            tracing::warn!("what killed servers left cannot be removed: {error}");
        }
    }

    /// Simulates a container that allows no namespaces.
    #[cfg(test)]
    pub(super) fn without_namespaces() -> Self {
        Processes { namespaces: false, ..Processes::default() }
    }

    /// Runs the command that `grant` allows, for the hook with that key. Its time starts when it gets a permit.
    pub(super) async fn run(
        &self,
        key: fair::Key,
        grant: &ProcessGrant,
        command: ProcessCommand,
        timeout: Duration,
    ) -> Result<ProcessOutput, AccessError> {
        let name = &command.program;
        let failed = |error: &dyn std::fmt::Display| AccessError::new(AccessCode::Failed, format!("`{name}`: {error}"));
        let _place = self.places.acquire(key, 1).await;
        let workspace = Workspace::new().map_err(|error| failed(&error))?;
        let directory = workspace.path().to_owned();
        let started = self.start(grant, &command, timeout, &workspace).await;
        if let Ok(Running { started: Some(started) }) = &started {
            workspace.note_session(started.pid.as_raw_nonzero().get()).map_err(|error| failed(&error))?;
        }
        let mut kept = RunResources::new(workspace);
        let output = match started {
            Ok(running) => running.finish(grant, command.stdin, timeout, &directory, &mut kept.program).await,
            Err(error) => Err(error.into()),
        };
        // Return only when nothing is left of the run.
        let _ = tokio::task::spawn_blocking(move || kept.end()).await;
        output.map_err(|stop| match stop {
            Stop::Timeout => AccessError::new(
                AccessCode::Timeout,
                format!("`{name}` ran longer than {} and was ended", format_duration(timeout)),
            ),
            Stop::Output => AccessError::new(
                AccessCode::TooLarge,
                format!("`{name}` wrote more than {} and was ended", format_size(grant.output_bytes)),
            ),
            Stop::Memory => AccessError::new(
                AccessCode::TooLarge,
                format!("`{name}` used more than {} of memory and was ended", format_size(grant.memory_bytes)),
            ),
            Stop::Processes => AccessError::new(
                AccessCode::TooLarge,
                format!("`{name}` had more than {PROCESSES_MAX} processes and was ended"),
            ),
            Stop::Disk => AccessError::new(
                AccessCode::TooLarge,
                format!(
                    "`{name}` left more than {DISK_ENTRIES_MAX} files, {} or {DISK_DEPTH_MAX} folders within each other in \
                     its directory and was ended",
                    format_size(DISK_BYTES_MAX as usize)
                ),
            ),
            Stop::Io(error) => failed(&error),
        })
    }

    async fn start(
        &self,
        grant: &ProcessGrant,
        command: &ProcessCommand,
        timeout: Duration,
        workspace: &Workspace,
    ) -> io::Result<Running> {
        let mut namespaces = self.namespaces;
        loop {
            let plan = sandbox::plan(grant, &command.args, &command.env, timeout, workspace, namespaces)?;
            let (sender, receiver) = oneshot::channel();
            self.launcher()?.send((plan, sender)).map_err(|_| io::Error::other("the launcher has ended"))?;
            match receiver.await.map_err(io::Error::other)? {
                Ok(running) => return Ok(running),
                // Containers often forbid namespaces; the rest of the sandbox works without them.
                Err(StartError { step: StartStep::Fork | StartStep::Map, .. }) if namespaces => namespaces = false,
                Err(StartError { step: StartStep::Exec, error }) => {
                    let denied = error.kind() == io::ErrorKind::PermissionDenied;
                    let hint =
                        if denied { "; it runs without rights, so anybody must be able to execute it" } else { "" };
                    return Err(io::Error::new(error.kind(), format!("cannot be executed: {error}{hint}")));
                }
                Err(StartError { step, error }) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("its sandbox cannot be created ({step:?}): {error}"),
                    ));
                }
            }
        }
    }

    /// The thread that forks. It lives as long as the server: a program is killed when the thread that started it ends,
    /// so programs end with the server, but not with some worker thread.
    fn launcher(&self) -> io::Result<&mpsc::Sender<Job>> {
        let launcher = self.launcher.get_or_init(|| {
            let (sender, jobs) = mpsc::channel::<Job>();
            std::thread::Builder::new().name("snaphook-launcher".to_owned()).spawn(move || {
                let mut keeper = Keeper::default();
                for (plan, waiting) in jobs {
                    keeper.keep();
                    // If nobody waits any more, dropping the message kills the started program.
                    let _ = waiting.send(child::start(&plan).map(|started| Running { started: Some(started) }));
                }
            })?;
            Ok(sender)
        });
        launcher.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }
}

/// Why a program was killed.
enum Stop {
    Timeout,
    Output,
    Memory,
    Processes,
    Disk,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Io(error)
    }
}

/// A running program; it is killed when this is dropped.
struct Running {
    started: Option<Started>,
}

impl Running {
    async fn finish(
        mut self,
        grant: &ProcessGrant,
        stdin: Vec<u8>,
        timeout: Duration,
        directory: &Path,
        kept: &mut Option<Program>,
    ) -> Result<ProcessOutput, Stop> {
        let Some(started) = self.started.take() else { return Err(io::Error::other("it has ended").into()) };
        let Started { pid, pidfd, stdin: input, stdout, stderr } = started;
        // From here on, dropping it kills the program.
        let program = kept.insert(Program { pid, pidfd, reaped: false });
        let written = AtomicUsize::new(0);
        let work = async {
            let (stdout, stderr, (), ()) = tokio::try_join!(
                read(stdout, &written, grant.output_bytes),
                read(stderr, &written, grant.output_bytes),
                feed(input, &stdin),
                program.ended(),
            )?;
            Ok::<_, Stop>((stdout, stderr))
        };
        let done = tokio::select! {
            done = work => done,
            stop = watch(pid, grant.memory_bytes as u64, directory) => Err(stop),
            () = tokio::time::sleep(timeout) => Err(Stop::Timeout),
        };
        let (stdout, stderr) = done?;
        let code = program.code().ok_or_else(|| io::Error::other("its exit code is unknown"))?;
        Ok(ProcessOutput { code, stdout, stderr })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(started) = self.started.take() {
            aside(move || {
                // Keeps its pipes open until it has ended.
                let started = started;
                reap(started.pid, &started.pidfd);
            });
        }
    }
}

/// A started child process; it is killed and reaped when this is dropped.
struct Program {
    pid: Pid,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Program {
    /// Waits for the program's end, then kills all processes that it left behind, which may keep its pipes open.
    async fn ended(&self) -> Result<(), Stop> {
        let pidfd = child::end_of(&self.pidfd)?;
        let _ready = pidfd.readable().await?;
        kill(self.pid, &self.pidfd);
        Ok(())
    }

    /// Reaps the program, which has ended.
    fn code(&mut self) -> Option<i32> {
        let code = wait(&self.pidfd);
        self.reaped = code.is_some();
        code
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.reaped {
            kill(self.pid, &self.pidfd);
            wait(&self.pidfd);
        }
    }
}

/// The resources of a run on this machine, in the order in which they must be released.
struct RunResources {
    program: Option<Program>,
    /// Only taken when it is dropped.
    workspace: Option<Workspace>,
}

impl RunResources {
    fn new(workspace: Workspace) -> Self {
        RunResources { program: None, workspace: Some(workspace) }
    }

    /// Releases all resources on this thread, which may block.
    fn end(&mut self) {
        self.program = None;
        self.workspace = None;
    }
}

impl Drop for RunResources {
    fn drop(&mut self) {
        let rest = (self.program.take(), self.workspace.take());
        if let (None, None) = rest {
            return;
        }
        // Tuples are dropped from the left.
        aside(move || drop(rest));
    }
}

/// Runs work that may take up to a second on another thread, because a run that is given up is dropped on a thread that
/// serves other requests.
fn aside(work: impl FnOnce() + Send + 'static) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

async fn read(pipe: PipeReader, written: &AtomicUsize, limit: usize) -> Result<Vec<u8>, Stop> {
    let mut pipe = pipe::Receiver::from_owned_fd(pipe.into())?;
    let mut bytes = Vec::new();
    loop {
        let before = bytes.len();
        if pipe.read_buf(&mut bytes).await? == 0 {
            return Ok(bytes);
        }
        let added = bytes.len() - before;
        if written.fetch_add(added, Ordering::Relaxed) + added > limit {
            return Err(Stop::Output);
        }
    }
}

async fn feed(pipe: PipeWriter, bytes: &[u8]) -> Result<(), Stop> {
    let mut pipe = pipe::Sender::from_owned_fd(pipe.into())?;
    match pipe.write_all(bytes).await {
        // The program need not read its input to the end.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Checks totals that the system's own limits do not cover: the memory of all processes, and the size of the directory.
fn watch(session: Pid, memory_bytes: u64, directory: &Path) -> impl Future<Output = Stop> {
    let directory = directory.to_owned();
    async move {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let directory = directory.clone();
            let look = move || {
                let load = sandbox::load(session.as_raw_nonzero().get(), &directory);
                let overfull = sandbox::is_overfull(&directory, load.unlinked_bytes);
                (load, overfull)
            };
            match tokio::task::spawn_blocking(look).await {
                Ok((load, _)) if load.memory_bytes > memory_bytes => return Stop::Memory,
                // The kernel only enforces this if the program has its own user.
                Ok((load, _)) if load.processes > PROCESSES_MAX => return Stop::Processes,
                Ok((_, true)) => return Stop::Disk,
                Ok(_) => {}
                Err(error) => return Stop::Io(io::Error::other(error)),
            }
        }
    }
}

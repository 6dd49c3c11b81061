//! A small process beside the server that cleans up when the server was killed.
//!
//! The system ends a program with the server that started it. It does not end what the program started, where there are no
//! namespaces, and leaves its directory. The keeper (this program again, `snaphook keeper`) waits at one end of a pipe whose
//! other end only the server has. When the server ends, however that is, it ends what is left of its programs, removes their
//! directories, and ends too; after an orderly end there is nothing to do.

use std::io::{self, Read};
use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::sandbox;

/// How long the end of the server is waited for after its end of the pipe was closed, and between two looks at it.
const SERVER_ENDS: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// When it looks for what is left, after the server's end: a program that was being started at that moment holds its
/// directory until it is ended itself.
const ROUNDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(900)];

/// The server's side.
#[derive(Default)]
pub(super) struct Keeper(Option<Child>);

impl Keeper {
    /// Sees to it that one is there.
    pub(super) fn keep(&mut self) {
        if let Some(child) = &mut self.0
            && matches!(child.try_wait(), Ok(None))
        {
            return;
        }
        match start() {
            Ok(child) => self.0 = Some(child),
            // The next server cleans up.
            Err(error) => tracing::warn!("nothing would clean up if the server were killed: {error}"),
        }
    }
}

/// Its standard input is the pipe; the server never writes to it.
fn start() -> io::Result<Child> {
    // Also after the file was replaced by a newer one.
    let mut command = Command::new("/proc/self/exe");
    #[cfg(not(test))]
    command.arg("keeper");
    // In the tests this program is the tests: one of them is the keeper.
    #[cfg(test)]
    command.env(super::tests::KEEPER, "1").args([super::tests::KEEPER_TEST, "--exact", "--test-threads=1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// The keeper's side: from its start to its end.
pub fn serve() -> ! {
    let server = parent_id();
    // What a terminal or a shell sends to the server's group is not for it.
    let _ = rustix::process::setsid();
    let mut pipe = io::stdin().lock();
    while pipe.read(&mut [0]).is_ok_and(|read| read > 0) {}
    // Its directories are free only when all its descriptors are closed.
    let closed = Instant::now();
    while parent_id() == server && closed.elapsed() < SERVER_ENDS {
        std::thread::sleep(LOOK_INTERVAL);
    }
    for pause in ROUNDS {
        std::thread::sleep(pause);
        sandbox::remove_of(server);
    }
    std::process::exit(0)
}

//! A small process beside the server that cleans up if the server is killed.
//!
//! The system kills a program when the server that started it ends. Without namespaces it does not kill the processes
//! that the program started, and it leaves the program's directory. The keeper (the same executable, run as `snaphook
//! keeper`) waits on one end of a pipe; only the server has the other end. When the server ends for any reason, the
//! keeper kills the remaining processes of its programs, removes their directories, and exits. After an orderly
//! shutdown there is nothing left to do.

use std::io::{self, Read};
use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::sandbox;

/// How long to wait for the server to end after its end of the pipe was closed, and the interval between two checks.
const SERVER_ENDS: Duration = Duration::from_secs(10);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// When it cleans up after the server's end: a program that was being started at that moment keeps its directory locked
/// until it is killed.
const ROUNDS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(900)];

/// The server's side.
#[derive(Default)]
pub(super) struct Keeper(Option<Child>);

impl Keeper {
    /// Starts a keeper if there is none.
    pub(super) fn keep(&mut self) {
        if let Some(child) = &mut self.0
            && matches!(child.try_wait(), Ok(None))
        {
            return;
        }
        match start() {
            Ok(child) => self.0 = Some(child),
            // Without a keeper, the next server cleans up.
            Err(error) => tracing::warn!("nothing would clean up if the server were killed: {error}"),
        }
    }
}

/// Starts the keeper. Its standard input is the pipe, to which the server never writes.
fn start() -> io::Result<Child> {
    // This works even after the file was replaced by a newer one.
    let mut command = Command::new("/proc/self/exe");
    #[cfg(not(test))]
    command.arg("keeper");
    // In tests, this program is the test binary; one of its tests acts as the keeper.
    #[cfg(test)]
    command.env(super::tests::KEEPER, "1").args([super::tests::KEEPER_TEST, "--exact", "--test-threads=1"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// The main function of the keeper.
pub fn serve() -> ! {
    let server = parent_id();
    // A new session, so that the keeper does not receive signals that a terminal or a shell sends to the server's
    // group.
    let _ = rustix::process::setsid();
    let mut pipe = io::stdin().lock();
    while pipe.read(&mut [0]).is_ok_and(|read| read > 0) {}
    // The server's directories are only unlocked when all its descriptors are closed.
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

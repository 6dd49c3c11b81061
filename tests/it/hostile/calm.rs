//! A model that is unrelated to the attack and receives requests all the while.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, Server};
use crate::workbench::open_model;

/// The other model must get at least 1/`PART` of the responses of an idle server on the same machine in the same time.
/// The absolute rate depends on the machine; a blocked server is far below.
const PART: usize = 10;
/// Too few responses to compare.
const FEW: usize = 40;

/// A failed measurement is repeated: what a hook causes recurs, other load on the machine varies.
const MEASUREMENTS: usize = 3;

/// The pause between two requests of a prober, so that the prober itself is no load.
const PAUSE: Duration = Duration::from_millis(1);

/// Only one attack is measured at a time.
static ONE: Mutex<()> = Mutex::new(());

/// The other model, on the attacked server and on an idle one.
pub(super) struct Bystander {
    attacked: Prober,
    control: Prober,
    _control_server: Server,
}

struct Prober {
    reader: Client,
    writer: Client,
}

impl Bystander {
    pub(super) fn new(server: &Server) -> Bystander {
        let control_server = Server::start();
        Bystander {
            attacked: Prober::new(server),
            control: Prober::new(&control_server),
            _control_server: control_server,
        }
    }

    /// Runs the attack, and sends requests to the other model until it ends.
    #[track_caller]
    pub(super) fn stays_calm(&self, name: &str, mut attack: impl FnMut()) {
        let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut seen = Vec::new();
        for _ in 0..MEASUREMENTS {
            let over = AtomicBool::new(false);
            let (attacked, control) = std::thread::scope(|scope| {
                let attacked = scope.spawn(|| self.attacked.ask_until(&over));
                let control = scope.spawn(|| self.control.ask_until(&over));
                // Also set if the attack panics; otherwise the probers would never end.
                let guard = SetOnDrop(&over);
                attack();
                drop(guard);
                (attacked.join().expect("answers"), control.join().expect("answers"))
            });
            let (answers, idle_answers) = (attacked.len(), control.len());
            let (p99, noise) = (percentile_99(attacked), percentile_99(control));
            eprintln!(
                "{name}: {answers} answers, p99 {p99:?}; of a server with nothing to do {idle_answers}, p99 {noise:?}"
            );
            if answers * PART + FEW >= idle_answers {
                return;
            }
            seen.push((answers, idle_answers));
        }
        panic!("{name}: another model hardly gets answers: {seen:?} (with those of a server with nothing to do)");
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Prober {
    fn new(server: &Server) -> Prober {
        let reader = server.client();
        for model in ["calm", "calm-hooked"] {
            open_model(&reader, model);
        }
        reader.post("/models/calm/instances", &json!({"id": "a", "data": {"n": 1}})).expect(201);
        // A model with a harmless hook must stay available too.
        let hook = "export const preCreate = ({ after }) => { if (after.n !== 1) throw new Reject('n'); };";
        reader.put_javascript("calm-hooked", "preCreate", hook).expect(200);
        Prober { reader, writer: server.client() }
    }

    fn ask_until(&self, over: &AtomicBool) -> Vec<Duration> {
        let mut times = Vec::new();
        // At least once, however short the attack is.
        loop {
            let started = Instant::now();
            self.reader.get("/models/calm/instances/a").expect(200);
            let read = started.elapsed();
            let started = Instant::now();
            self.reader.get("/healthz").expect(200);
            let alive = started.elapsed();
            let started = Instant::now() - read;
            self.writer.post("/models/calm/instances", &json!({"data": {"n": 1}})).expect(201);
            let written = started.elapsed();
            self.writer.post("/models/calm-hooked/instances", &json!({"data": {"n": 1}})).expect(201);
            times.extend([read, alive, written - read, started.elapsed() - written]);
            if over.load(Ordering::SeqCst) {
                return times;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn percentile_99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100) - 1]
}

/// A server that is really blocked is detected.
#[cfg(unix)]
#[test]
fn the_measurement_can_fail() {
    use rustix::process::Signal;

    use crate::workbench::signal;

    let server = Server::start();
    let bystander = Bystander::new(&server);
    bystander.stays_calm("nothing", || {});
    let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        bystander.stays_calm("stopped", || {
            signal(&server, Signal::STOP);
            // This is the simulated fault, not a wait.
            std::thread::sleep(Duration::from_secs(3));
            signal(&server, Signal::CONT);
        });
    }));
    assert!(noticed.is_err());
}

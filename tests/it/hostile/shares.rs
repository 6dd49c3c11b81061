//! Resources shared between hooks: many calls of one hook do not prevent another from running.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Server, ServerOptions, eventually};
use crate::workbench::{create, grant, open_model};

/// The time within which a hook must run although another hook uses its maximum.
const SOON: Duration = Duration::from_secs(2);

#[cfg(target_os = "linux")]
#[test]
fn programs_of_one_hook_leave_some_to_others() {
    use crate::workbench::{bind_post, once, react};

    let sleep = std::fs::canonicalize("/usr/bin/sleep").expect("a program");
    let sleep = sleep.display();
    let process = format!("process = [{{ program = '{sleep}', args = ['*'] }}]\ntimeout = '60 s'");
    let tables = format!("{}{}", grant("many", "postCreate", &process), grant("one", "postCreate", &process));
    let server = Server::start_with(once(tables));
    let api = server.client();
    for model in ["many", "one"] {
        open_model(&api, model);
        bind_post(&api, model, &format!("return await run('{sleep}', [after.seconds])"));
    }
    react(&api, "one", &json!({"seconds": "0"}));
    for _ in 0..32 {
        create(&api, "many", &json!({"seconds": "8"})).expect(201);
    }
    eventually("the programs of the first hook run", || {
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        let count = lines.filter(|line| String::from_utf8_lossy(line) == format!("{sleep}\08\0")).count();
        (count >= 12).then_some(())
    });
    let started = Instant::now();
    assert_eq!(react(&api, "one", &json!({"seconds": "0"}))["code"], 0);
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

/// Hooks take turns on the cores, however many calls each has: a call with the work of sixteen calls ends before half
/// of the other hook's sixty-four, because it gets at least every second turn of one core.
#[cfg(target_os = "linux")]
#[test]
fn many_long_calls_of_one_hook_leave_the_cores_to_others() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    const MANY: usize = 64;
    const WORK: &str = "export function preCreate({ after }) { for (let n = 0; n < after.rounds * 1_000_000; n++); }";
    let options =
        ServerOptions { hooks: format!("timeout = '110 s'\nconcurrency = {MANY}"), ..ServerOptions::default() };
    let server = Server::start_with(options);
    let api = server.client();
    for model in ["many", "one"] {
        open_model(&api, model);
        api.put_javascript(model, "preCreate", WORK).expect(200);
    }
    let ended = AtomicUsize::new(0);
    let before = std::thread::scope(|scope| {
        for client in (0..MANY).map(|_| server.client()) {
            let ended = &ended;
            scope.spawn(move || {
                create(&client, "many", &json!({"rounds": 1})).expect(201);
                ended.fetch_add(1, Ordering::SeqCst);
            });
        }
        eventually("its calls have the cores", || (lane_ticks(server.pid()) >= 20).then_some(()));
        create(&api, "one", &json!({"rounds": MANY / 4})).expect(201);
        ended.load(Ordering::SeqCst)
    });
    assert!(before < MANY / 2, "{before} calls of the other hook ended first");
}

/// The processor time of the threads for long calls, in hundredths of a second.
#[cfg(target_os = "linux")]
fn lane_ticks(server: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{server}/task")).expect("threads").flatten();
    let ticks = |thread: std::fs::DirEntry| -> Option<u64> {
        let stat = std::fs::read_to_string(thread.path().join("stat")).ok()?;
        let (name, fields) = stat.rsplit_once(')')?;
        name.ends_with("(hook-lane").then(|| fields.split_whitespace().nth(11)?.parse().ok())?
    };
    threads.filter_map(ticks).sum()
}

#[test]
fn waiting_calls_of_one_v8_hook_leave_room_for_others() {
    // With 1 GiB each, only a few fit on any machine.
    let Some(arena) = super::v8::arena("timeout = '20 s'\nmemory = '1 GiB'") else { return };
    let (many, one) = (arena.victim(), arena.victim());
    let waits = "export async function preCreate() { await new Promise((done) => setTimeout(done, 6000)); }";
    arena.bind(&many, "waits", waits).expect(200);
    arena.bind(&one, "quick", "export function preCreate() {}").expect(200);
    create(&arena.api, &one, &json!({})).expect(201);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..64).map(|_| arena.server.client()).collect();
        for client in clients {
            let path = format!("/models/{many}/instances");
            scope.spawn(move || client.request("POST", &path).json(&json!({"data": {}})).try_send());
        }
        eventually("its calls run", || {
            let workers = super::v8::workers(arena.server.pid());
            (workers.len() >= 3).then_some(())
        });
        for _ in 0..5 {
            let started = Instant::now();
            create(&arena.api, &one, &json!({})).expect(201);
            assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        }
        // There is no need to wait for the other calls.
        arena.server.signal(rustix::process::Signal::KILL);
    });
}

//! Post hooks: leases, tries, chains that change, a model store that is out of service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use snaphook_driver::EventStore;
use tokio::sync::Semaphore;

use super::delivery::LEASE;
use crate::config::Phase;
use crate::engine::command::{InstanceChange, Origin, WriteOptions, Written};
use crate::engine::group::group_of;
use crate::engine::testing::{Bench, bench_with, eventually, failed, input};
use crate::hooks::context::Outcome;

const WRITES: &str = "[[grants]]\nmodel = '*'\nphase = '*'\nhook = '*'\nread = ['*']\nwrite = ['*']\n";

async fn with_model(toml: &str, properties: serde_json::Value) -> Bench {
    let bench = bench_with(toml).await;
    bench.model("m", input(properties, &[])).await.unwrap();
    bench
}

/// Counts its runs, and lets pass or fails as told.
fn counter(bench: &Bench, code: &str, fails: bool) -> (Arc<AtomicUsize>, Arc<AtomicBool>) {
    let (runs, fails) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(fails)));
    let kept = (Arc::clone(&runs), Arc::clone(&fails));
    bench.code(code, move |_, _| {
        runs.fetch_add(1, Ordering::Relaxed);
        let fails = fails.load(Ordering::Relaxed);
        async move { if fails { failed("as told") } else { Outcome::Accept } }
    });
    kept
}

async fn settled(bench: &Bench) {
    eventually("every event is acknowledged", || async {
        (bench.events.lag("post:m").await.unwrap().0 == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_lease_lasts_as_long_as_the_run() {
    let bench = with_model("", json!({})).await;
    let (gate, runs) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (held, counted) = (Arc::clone(&gate), Arc::clone(&runs));
    bench.code("wait", move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        let gate = Arc::clone(&held);
        async move {
            gate.acquire().await.unwrap().forget();
            Outcome::Accept
        }
    });
    bench.bind(Phase::PostCreate, &[("h", "wait")]).await;
    bench.create("one", json!({})).await.unwrap();
    // Far beyond one lease.
    eventually("renewals", || async { (bench.events.renewals.load(Ordering::Relaxed) >= 9).then_some(()) }).await;
    assert_eq!(bench.events.claim(&group_of("m").name, 1, LEASE).await.unwrap(), []);
    gate.add_permits(1);
    settled(&bench).await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

/// Somebody else may have the event once the lease is over: what runs must have ended by then.
#[tokio::test]
async fn a_run_ends_before_its_lease_if_that_is_not_renewed() {
    let bench = with_model("", json!({})).await;
    let (running, runs) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, counted) = (Arc::clone(&running), Arc::clone(&runs));
    bench.code("wait", move |_, _| {
        struct Runs(Arc<AtomicUsize>);
        impl Drop for Runs {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        counted.fetch_add(1, Ordering::Relaxed);
        now.fetch_add(1, Ordering::Relaxed);
        let run = Runs(Arc::clone(&now));
        async move {
            let _run = run;
            std::future::pending().await
        }
    });
    bench.bind(Phase::PostCreate, &[("h", "wait")]).await;
    bench.create("one", json!({})).await.unwrap();
    eventually("it runs", || async { (running.load(Ordering::Relaxed) == 1).then_some(()) }).await;
    bench.events.keeps_no_lease.store(true, Ordering::Relaxed);
    let group = group_of("m").name;
    eventually("it ends", || async {
        // Whoever looks at the same time gets nothing while it runs.
        let taken = bench.events.claim(&group, 1, LEASE).await.unwrap();
        let has_ended = running.load(Ordering::Relaxed) == 0;
        assert!(taken.is_empty() || has_ended, "somebody else got the event while it ran: {taken:?}");
        has_ended.then_some(())
    })
    .await;
    bench.events.keeps_no_lease.store(false, Ordering::Relaxed);
    eventually("it runs again", || async { (runs.load(Ordering::Relaxed) >= 2).then_some(()) }).await;
}

#[tokio::test]
async fn a_chain_that_changes_between_tries_loses_no_hook_and_repeats_none() {
    let bench = with_model("[hooks]\nmax-attempts = 50\n", json!({})).await;
    let (a, _) = counter(&bench, "a", false);
    let (b, fails) = counter(&bench, "b", true);
    let (c, _) = counter(&bench, "c", false);
    bench.bind(Phase::PostCreate, &[("a", "a"), ("b", "b")]).await;
    bench.create("one", json!({})).await.unwrap();
    eventually("a failure", || async { (b.load(Ordering::Relaxed) >= 1).then_some(()) }).await;
    bench.bind(Phase::PostCreate, &[("c", "c"), ("b", "b"), ("a", "a")]).await;
    fails.store(false, Ordering::Relaxed);
    settled(&bench).await;
    assert_eq!((a.load(Ordering::Relaxed), c.load(Ordering::Relaxed)), (1, 1));
    assert!(b.load(Ordering::Relaxed) >= 2);
}

#[tokio::test]
async fn hooks_wait_while_the_model_store_is_out_of_service() {
    let bench = with_model(&format!("{WRITES}\n[hooks]\nmax-attempts = 1\n"), json!({})).await;
    bench.model("log", input(json!({}), &[])).await.unwrap();
    bench.code("read", |context, session| async move {
        match session.read_get("m", &context.instance).await {
            Ok(Some(_)) => Outcome::Accept,
            other => failed(&format!("{other:?}")),
        }
    });
    bench.bind(Phase::PostCreate, &[("h", "read")]).await;
    bench.store.fails.store(true, Ordering::Relaxed);
    bench.create("one", json!({})).await.unwrap();
    // The committer tries to catch up meanwhile, and the hook could run.
    tokio::task::yield_now().await;
    bench.store.fails.store(false, Ordering::Relaxed);
    settled(&bench).await;
    assert!(bench.errors().await.is_empty(), "{:?}", bench.errors().await);
}

#[tokio::test]
async fn a_run_that_an_outage_disturbed_is_no_try() {
    let bench = with_model(&format!("{WRITES}\n[hooks]\nmax-attempts = 1\n"), json!({})).await;
    let (started, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (began, held) = (Arc::clone(&started), Arc::clone(&gate));
    bench.code("read", move |context, session| {
        let (began, held) = (Arc::clone(&began), Arc::clone(&held));
        async move {
            began.add_permits(1);
            held.acquire().await.unwrap().forget();
            match session.read_get("m", &context.instance).await {
                Ok(Some(_)) => Outcome::Accept,
                other => failed(&format!("{other:?}")),
            }
        }
    });
    bench.bind(Phase::PostCreate, &[("h", "read")]).await;
    bench.create("one", json!({})).await.unwrap();
    started.acquire().await.unwrap().forget();
    bench.store.fails.store(true, Ordering::Relaxed);
    bench.create("two", json!({})).await.unwrap();
    gate.add_permits(1);
    // The run has met the outage; the next ones find everything.
    let counted = || bench.engine.core.metrics.post_failures.load(Ordering::Relaxed);
    eventually("a failure", || async { (counted() >= 1).then_some(()) }).await;
    bench.store.fails.store(false, Ordering::Relaxed);
    gate.add_permits(100);
    settled(&bench).await;
    assert!(bench.errors().await.is_empty(), "{:?}", bench.errors().await);
}

#[tokio::test]
async fn only_real_tries_count_across_a_restart() {
    // One call at a time and sixteen that wait: of forty some find no place, many times.
    let bench = with_model("[hooks]\nmax-attempts = 3\nconcurrency = 1\n", json!({})).await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    bench.code("wait", move |_, _| {
        let gate = Arc::clone(&held);
        async move {
            gate.acquire().await.unwrap().forget();
            Outcome::Accept
        }
    });
    bench.bind(Phase::PostCreate, &[("h", "wait")]).await;
    for n in 0..40 {
        bench.create(&format!("i{n}"), json!({})).await.unwrap();
    }
    let overloads = || bench.engine.core.metrics.post_failures.load(Ordering::Relaxed);
    eventually("overloads", || async { (overloads() >= 60).then_some(()) }).await;
    // Each was claimed once, whatever happened to it since.
    assert!(bench.engine.core.metrics.deliveries.load(Ordering::Relaxed) <= 32);
    gate.add_permits(1000);
    settled(&bench).await;
    assert!(bench.errors().await.is_empty());
}

#[tokio::test]
async fn an_event_that_ends_the_server_is_given_up() {
    let bench = with_model("[hooks]\nmax-attempts = 3\n", json!({})).await;
    bench.code("never", |_, _| std::future::pending::<Outcome>());
    bench.code("fail", |_, _| async { failed("at last") });
    bench.bind(Phase::PostCreate, &[("h", "never")]).await;
    bench.create("one", json!({})).await.unwrap();
    let group = group_of("m").name;
    eventually("a run", || async { (bench.engine.core.metrics.deliveries.load(Ordering::Relaxed) >= 1).then_some(()) })
        .await;
    // As after two crashes.
    bench.engine.core.lanes.close(std::time::Duration::ZERO).await;
    let take = || async { bench.events.claim(&group, 1, LEASE).await.unwrap().pop() };
    let second = eventually("the lease ends", take).await;
    assert_eq!(second.attempt, 2);
    bench.events.release(&group, second.event.position, second.token, std::time::Duration::ZERO, None).await.unwrap();
    bench.code("never", |_, _| async { failed("at last") });
    let bench = bench.restart().await;
    let errors =
        eventually("it is given up", || async { Some(bench.errors().await).filter(|all| !all.is_empty()) }).await;
    assert_eq!((errors.len(), errors[0].attempts), (1, 3));
}

/// Else it would end the server at each start.
#[tokio::test]
async fn an_event_that_always_ends_the_server_does_not_run_once_more() {
    let bench = with_model("[hooks]\nmax-attempts = 3\n", json!({})).await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    bench.code("never", move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<Outcome>()
    });
    bench.bind(Phase::PostCreate, &[("h", "never")]).await;
    bench.create("one", json!({})).await.unwrap();
    eventually("a run", || async { (runs.load(Ordering::Relaxed) == 1).then_some(()) }).await;
    // As after four crashes: one of them may have had another cause.
    bench.engine.core.lanes.close(std::time::Duration::ZERO).await;
    let group = group_of("m").name;
    let take = || async { bench.events.claim(&group, 1, LEASE).await.unwrap().pop() };
    for attempt in [2, 3, 4] {
        let taken = eventually("the lease ends", take).await;
        assert_eq!(taken.attempt, attempt);
        bench.events.release(&group, taken.event.position, taken.token, std::time::Duration::ZERO, None).await.unwrap();
    }
    let bench = bench.restart().await;
    let errors =
        eventually("it is given up", || async { Some(bench.errors().await).filter(|all| !all.is_empty()) }).await;
    assert_eq!((errors.len(), errors[0].attempts, errors[0].cause.as_str()), (1, 4, "internal"));
    assert!(errors[0].message.contains("4 times"), "{}", errors[0].message);
    settled(&bench).await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn depth_is_the_cause_only_of_a_write_that_was_granted() {
    for (grants, cause) in [(WRITES, "depth"), ("", "exception")] {
        let bench = with_model(&format!("{grants}\n[hooks]\nmax-attempts = 1\n"), json!({})).await;
        bench.code("write", |_, session| async move {
            match session.write_create("m", None, "{}").await {
                Ok(_) => Outcome::Accept,
                Err(error) => failed(&format!("{error:?}")),
            }
        });
        let cause_of_eight = snaphook_driver::Cause { position: 1, hook: "m.postCreate/h".to_owned(), depth: 8 };
        let origin = Origin { cause: Some(cause_of_eight), ..Origin::default() };
        bench.bind(Phase::PostCreate, &[("h", "write")]).await;
        let change = InstanceChange::Create { id: None, data: snaphook_driver::Json::trusted("{}") };
        bench.engine.writes.change("m", change, &WriteOptions::default(), &origin).await.unwrap();
        let errors =
            eventually("an error", || async { Some(bench.errors().await).filter(|all| !all.is_empty()) }).await;
        assert_eq!(errors[0].cause, cause);
        let stats = bench.engine.deliveries.hook_stats("m", Phase::PostCreate).unwrap();
        assert_eq!(stats[0]["failures"][cause], 1, "{}", stats[0]);
    }
}

#[tokio::test]
async fn the_messages_of_failures_are_bounded() {
    let bench = with_model("[hooks]\nmax-attempts = 1\n", json!({})).await;
    bench.code("fail", |_, _| async { failed(&"ä".repeat(100_000)) });
    bench.bind(Phase::PostCreate, &[("h", "fail")]).await;
    bench.create("one", json!({})).await.unwrap();
    let errors = eventually("an error", || async { Some(bench.errors().await).filter(|all| !all.is_empty()) }).await;
    assert!(errors[0].message.len() <= 4 * 1024 + 3, "{}", errors[0].message.len());
}

#[tokio::test]
async fn before_has_the_form_of_after() {
    let bench = with_model("", json!({"a": {}})).await;
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    bench.code("see", move |context, _| {
        kept.lock().unwrap().push(context.before.map(|before| before.to_string()));
        async { Outcome::Accept }
    });
    bench.bind(Phase::PostUpdate, &[("h", "see")]).await;
    let Written::Created(_) = bench.create("one", json!({"a": 1})).await.unwrap() else { panic!() };
    let mut renamed = input(json!({"b": {}, "c": {"default": 7}}), &[]);
    renamed.renames = vec![("a".to_owned(), "b".to_owned())];
    bench.update("m", renamed).await.unwrap();
    bench.replace("one", json!({"b": 2})).await.unwrap();
    settled(&bench).await;
    assert_eq!(*seen.lock().unwrap(), [Some(r#"{"b":1,"c":7}"#.to_owned())]);
}

#[tokio::test]
async fn the_end_of_the_hooks_cannot_be_missed() {
    let bench = with_model("", json!({})).await;
    bench.code("never", |_, _| std::future::pending::<Outcome>());
    bench.bind(Phase::PostCreate, &[("h", "never")]).await;
    // As if the hooks were done at the very moment at which the event can be seen.
    let waiters = Arc::clone(&bench.engine.core.waiters);
    *bench.store.applied.lock().unwrap() = Some(Box::new(move |events| waiters.settle(events[0].position)));
    let options = WriteOptions { wait: Some(std::time::Duration::from_secs(3600)), ..WriteOptions::default() };
    let change = InstanceChange::Create { id: None, data: snaphook_driver::Json::trusted("{}") };
    let written = tokio::time::timeout(std::time::Duration::from_secs(30), bench.write(change, options)).await;
    assert!(matches!(written.unwrap().unwrap(), Written::Created(_)));
}

/// Its event cannot be acknowledged any more, which is no fault of the store: nothing would ever end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_ends_after_its_binding_leaves_the_server_ready() {
    let bench = with_model("", json!({})).await;
    let (begun, go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (begins, goes) = (Arc::clone(&begun), Arc::clone(&go));
    bench.code("slow", move |_, _| {
        let (begins, goes) = (Arc::clone(&begins), Arc::clone(&goes));
        async move {
            begins.add_permits(1);
            goes.acquire().await.unwrap().forget();
            Outcome::Accept
        }
    });
    for round in 0..20 {
        bench.bind(Phase::PostCreate, &[("slow", "slow")]).await;
        bench.create(&format!("a{round}"), json!({})).await.unwrap();
        begun.acquire().await.unwrap().forget();
        let (options, origin) = (WriteOptions::default(), Origin::default());
        bench.engine.definitions.delete_hooks("m", Phase::PostCreate, &options, &origin).await.unwrap();
        go.add_permits(1);
        // It acknowledges meanwhile.
        for _ in 0..100 {
            assert_eq!(bench.engine.operations.readiness().await.stores.len(), 0, "round {round}");
            tokio::task::yield_now().await;
        }
    }
}

//! A slow receiver delays its own events only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{bind, create, start};
use crate::peer::{Peer, PeerResponse};
use crate::support::eventually;
use crate::workbench::open_model;

/// Each model may process 32 events at once, and all models together 256 quick ones.
const MODELS: usize = 9;
const EVENTS: usize = 34;

#[test]
fn one_that_is_slow_keeps_nobody_else_waiting() {
    let (holds, inside, most) =
        (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (held, counted, largest) = (Arc::clone(&holds), Arc::clone(&inside), Arc::clone(&most));
    let slow = Peer::start(move |_| {
        largest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        while held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        counted.fetch_sub(1, Ordering::SeqCst);
        PeerResponse::new(204, "")
    });
    let quick = Peer::start(|_| PeerResponse::new(204, ""));
    let (_server, api) = start(&[slow.url("/*"), quick.url("/*")], "", "timeout = '100 s'");
    for model in 0..MODELS {
        let model = format!("slow-{model}");
        open_model(&api, &model);
        bind(&api, &model, "postCreate", &slow.url(&format!("/{model}")));
        for number in 0..EVENTS {
            create(&api, &model, &format!("o-{number}"));
        }
    }
    eventually("it is asked as much as may be", || (inside.load(Ordering::SeqCst) == 16).then_some(()));
    bind(&api, "order", "postCreate", &quick.url("/"));
    for number in 0..50 {
        create(&api, "order", &format!("o-{number}"));
    }
    eventually("the quick one has all of its events", || (quick.asked().len() == 50).then_some(()));
    // All this while the slow receiver had not responded at all.
    assert_eq!((inside.load(Ordering::SeqCst), slow.asked().len()), (16, 16));
    holds.store(false, Ordering::SeqCst);
    eventually("the slow one has its events too", || (slow.asked().len() == MODELS * EVENTS).then_some(()));
    assert_eq!(most.load(Ordering::SeqCst), 16);
}

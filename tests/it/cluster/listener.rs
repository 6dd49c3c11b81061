//! A listener that follows the log endlessly and switches between nodes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::chance::Chance;
use crate::support::{Client, eventually};

pub(super) struct Listener {
    heard: Arc<Mutex<Vec<u64>>>,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Listener {
    pub(super) fn start(addresses: Vec<SocketAddr>, chance: Chance) -> Listener {
        let heard: Arc<Mutex<Vec<u64>>> = Arc::default();
        let ends: Arc<AtomicBool> = Arc::default();
        let follower = Follower { addresses, chance, heard: Arc::clone(&heard), last: None };
        let thread = std::thread::spawn({
            let ends = Arc::clone(&ends);
            move || follower.run(&ends)
        });
        Listener { heard, ends, thread }
    }

    /// Checks that the listener received exactly these events, once each and in order.
    #[track_caller]
    pub(super) fn check(&self, positions: &[u64]) {
        let heard = || self.heard.lock().expect("no panic while locked").clone();
        if let Some(last) = positions.last() {
            eventually("a listener hears the last event", || {
                (heard().last() >= Some(last) || self.thread.is_finished()).then_some(())
            });
        }
        let heard = heard();
        let differs = heard.iter().zip(positions).position(|(heard, position)| heard != position);
        assert!(heard == positions, "a listener heard other events, from {differs:?} on: {heard:?}");
    }

    #[track_caller]
    pub(super) fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("a listener");
    }
}

struct Follower {
    addresses: Vec<SocketAddr>,
    chance: Chance,
    heard: Arc<Mutex<Vec<u64>>>,
    /// The id of the last event.
    last: Option<String>,
}

impl Follower {
    fn run(mut self, ends: &AtomicBool) {
        while !ends.load(Ordering::Relaxed) {
            let address = self.addresses[self.chance.below(self.addresses.len())];
            // If a node is gone, switch to another.
            if self.follow(address, ends).is_err() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn follow(&mut self, address: SocketAddr, ends: &AtomicBool) -> std::io::Result<()> {
        let client = Client::new(address, "/");
        let mut stream = match &self.last {
            None => client.try_stream("/events/stream?after=0", &[])?,
            Some(last) => client.try_stream("/events/stream", &[("Last-Event-ID", last)])?,
        };
        // A node whose store is down may reject the listener, but no node may report that the position is unknown.
        match stream.status() {
            200 => {}
            503 => return Err(std::io::ErrorKind::ConnectionRefused.into()),
            status => panic!("a listener that goes on after {:?} is answered {status}", self.last),
        }
        for _ in 0..self.chance.within(10..500) {
            let frame = loop {
                match stream.poll(Duration::from_millis(200)) {
                    Ok(Some(frame)) => break frame,
                    Ok(None) => return Ok(()),
                    Err(error) if is_late(&error) && ends.load(Ordering::Relaxed) => return Ok(()),
                    Err(error) if is_late(&error) => {}
                    Err(error) => return Err(error),
                }
            };
            self.heard.lock().expect("no panic while locked").push(frame.position());
            self.last = frame.id;
        }
        Ok(())
    }
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock)
}

//! Compares the judge with the naive log, on random appends.
//!
//! `SNAPHOOK_JUDGE_APPENDS` sets their number; the default takes a few seconds. Seeds are numbered from 1, so a failure
//! is reproduced by any run of the same length or more.

mod stores;

use std::hash::Hasher as _;

use snaphook_driver::judge::{LogEnd, VERSION, judge};
use snaphook_driver_testkit::appends::{Client, KEYS, may_be_held};
use snaphook_driver_testkit::naive::NaiveLog;
use stores::{ByNet, ByRow};

/// Batches per log: enough for claims to expire and be removed, few enough for the history to be searched quickly.
const BATCHES: usize = 25;

const APPENDS: u64 = 100_000;

#[test]
fn verdicts_are_those_of_the_naive_log() {
    let appends = std::env::var("SNAPHOOK_JUDGE_APPENDS").map_or(APPENDS, |text| text.parse().expect("a number"));
    let (mut done, mut accepted, mut seed) = (0, 0, 0);
    while done < appends {
        seed += 1;
        let (rows, successes) = compare(seed);
        done += rows;
        accepted += successes;
    }
    println!("{done} appends in {seed} logs, {accepted} accepted");
    assert!((done / 5..done * 4 / 5).contains(&accepted), "{accepted} of {done}: neither outcome is rare");
}

/// Runs one log. Returns the number of appends, and how many of them succeeded.
fn compare(seed: u64) -> (u64, u64) {
    let (mut client, mut naive) = (Client::new(seed), NaiveLog::default());
    let (mut by_row, mut by_net) = (ByRow::default(), ByNet::default());
    let (mut rows, mut accepted) = (0, 0);
    for round in 0..BATCHES {
        let (batch, atomic) = client.batch(&naive);
        let expected = naive.append(&batch, atomic);
        let context = || format!("seed {seed}, round {round}, atomic {atomic}: {batch:#?}");
        let asked = judge(by_row.end, &batch, atomic, &mut by_row).expect("a state that does not fail");
        let loaded = judge(by_net.end, &batch, atomic, &mut by_net.known(&batch)).expect("the same");
        assert_eq!(asked.answers, expected, "{}", context());
        assert_eq!(asked, loaded, "{}", context());
        rows += batch.len() as u64;
        accepted += asked.accepted.len() as u64;
        by_row.write(&asked);
        by_net.write(&loaded);
        assert_eq!(by_row.end.position, naive.head(), "{}", context());
        assert_eq!(by_row.tails, by_net.tails, "{}", context());
        for key in KEYS {
            // One store removes expired claims, the other never does.
            assert!(may_be_held(&naive, key, by_row.holders.get(key)), "{}", context());
            assert_eq!(by_net.holders.get(key), naive.holder(key), "{}", context());
        }
    }
    (rows, accepted)
}

/// If the rules changed, increase [`VERSION`]. If only the random appends changed, update the digest.
#[test]
fn this_version_gives_the_verdicts_that_it_gave() {
    const DIGEST: (u32, u64) = (1, 9_468_893_997_363_045_838);
    let mut digest = Fnv(0xcbf2_9ce4_8422_2325);
    for seed in 1..=100 {
        let (mut client, mut naive, mut store) = (Client::new(seed), NaiveLog::default(), ByRow::default());
        for _ in 0..BATCHES {
            let (batch, atomic) = client.batch(&naive);
            naive.append(&batch, atomic);
            let judged = judge(store.end, &batch, atomic, &mut store).expect("a state that does not fail");
            store.write(&judged);
            digest.write(&serde_json::to_vec(&judged.answers).expect("answers are data"));
            digest.write(format!("{:?}", judged.removal).as_bytes());
        }
        digest.write(&serde_json::to_vec(&store.holders).expect("holders are data"));
    }
    assert_eq!((VERSION, digest.finish()), DIGEST);
}

/// Judging an empty batch on an empty log changes nothing.
#[test]
fn a_log_without_events_has_no_time() {
    let judged = judge(LogEnd::EMPTY, &[], true, &mut ByRow::default()).expect("a state that does not fail");
    assert_eq!((judged.answers, judged.removal, judged.end), (Vec::new(), None, LogEnd::EMPTY));
}

/// FNV-1a: the same everywhere, unlike the hashers of the standard library.
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

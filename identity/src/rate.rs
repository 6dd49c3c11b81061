//! Requests per second of a token or an address, counted by GCRA: one time per caller, no timer, no queue.
//!
//! The crate governor implements the same algorithm, but its keyed stores grow with every address until they are
//! cleaned up; here a caller that was idle for a second is dropped as soon as its slot is needed.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use snaphook_driver::ActorKind;

use crate::attempts::client_of;
use crate::caller::Caller;
use crate::table::Table;

const SECOND: u64 = 1_000_000_000;
/// How many callers are remembered, in about 2 MB.
const CALLERS_MAX: usize = 65_536;

/// A limit of requests per second for each caller; after a pause, the same number is allowed at once.
#[derive(Debug)]
pub struct RateLimit {
    per_second: AtomicU32,
    start: Instant,
    /// When the caller's requests so far would be used up at the limit's rate, in nanoseconds since `start`.
    used_until: Table<u64>,
}

impl RateLimit {
    /// 0: no limit, and no cost.
    pub fn new(per_second: u32) -> RateLimit {
        let used_until = Table::new(CALLERS_MAX);
        RateLimit { per_second: AtomicU32::new(per_second), start: Instant::now(), used_until }
    }

    /// Changes the limit.
    pub fn set(&self, per_second: u32) {
        self.per_second.store(per_second, Ordering::Relaxed);
    }

    /// Counts one request for its token's actor, or for its address if nobody was identified. An error is the time that
    /// the caller must wait.
    pub fn check(&self, caller: Option<&Caller>, address: IpAddr) -> Result<(), Duration> {
        match self.per_second.load(Ordering::Relaxed) {
            0 => Ok(()),
            per_second => self.count(per_second, caller, address, Instant::now()),
        }
    }

    fn count(&self, per_second: u32, caller: Option<&Caller>, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let now = u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        let interval = (SECOND / u64::from(per_second)).max(1);
        let change = |used_until: &mut u64| {
            let from = now.max(*used_until);
            let too_early = (from - now).saturating_sub(SECOND.saturating_sub(interval));
            match too_early {
                0 => {
                    *used_until = from.saturating_add(interval);
                    Ok(())
                }
                wait => Err(Duration::from_nanos(wait)),
            }
        };
        let is_stale = |used_until: &u64| *used_until <= now;
        match caller.map(|caller| &caller.actor).filter(|actor| actor.kind != ActorKind::Anonymous) {
            Some(actor) => self.used_until.update(&(actor.kind, actor.id.as_str()), is_stale, change),
            None => self.used_until.update(&client_of(address), is_stale, change),
        }
    }
}

#[cfg(test)]
mod tests {
    use snaphook_driver::Actor;

    use super::*;
    use crate::role::Role;
    use crate::scope::Scope;

    fn caller(id: &str, kind: ActorKind) -> Caller {
        Caller::new(Actor::new(kind, id), Role::Reader, Scope::ALL)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        for per_second in [1, 3, 50, 1_000_000] {
            let limit = RateLimit::new(per_second);
            let ask = |millis: u64| {
                limit.count(per_second, None, address("192.0.2.1"), limit.start + Duration::from_millis(millis))
            };
            let passed = (0..per_second + 2).filter(|_| ask(0).is_ok()).count();
            assert_eq!(passed, per_second as usize);
            let wait = ask(0).unwrap_err();
            assert!(wait <= Duration::from_secs(1) / per_second && !wait.is_zero(), "{per_second}: {wait:?}");
            // After the wait one more request is allowed, after a second all of them.
            assert!(ask(wait.as_millis() as u64 + 1).is_ok());
            let passed = (0..per_second + 2).filter(|_| ask(5_000).is_ok()).count();
            assert_eq!(passed, per_second as usize);
        }
    }

    #[test]
    fn no_second_of_a_hurried_caller_has_more_than_twice_the_limit() {
        let limit = RateLimit::new(10);
        let mut passed = Vec::new();
        for millis in (0..10_000_u64).step_by(7) {
            let now = limit.start + Duration::from_millis(millis);
            if limit.count(10, None, address("192.0.2.1"), now).is_ok() {
                passed.push(millis);
            }
        }
        assert!((100..=110).contains(&passed.len()), "{}", passed.len());
        for start in &passed {
            let within = passed.iter().filter(|at| (*start..start + 1000).contains(*at)).count();
            assert!(within <= 20, "{within}");
        }
    }

    #[test]
    fn callers_are_told_apart() {
        let limit = RateLimit::new(1);
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        let [a, b] = ["a", "b"].map(|id| caller(id, ActorKind::Token));
        assert!(limit.check(Some(&a), here).is_ok());
        assert!(limit.check(Some(&a), there).is_err(), "a token counts wherever it is used");
        assert!(limit.check(Some(&b), here).is_ok());
        assert!(limit.check(Some(&caller("a", ActorKind::Oidc)), here).is_ok(), "another kind is another actor");
        assert!(limit.check(None, here).is_ok());
        assert!(limit.check(Some(&Caller::anonymous()), here).is_err(), "the anonymous count by address");
        assert!(limit.check(Some(&Caller::anonymous()), there).is_ok());
    }

    #[test]
    fn no_limit_counts_nothing_and_a_new_limit_holds_at_once() {
        let limit = RateLimit::new(0);
        assert!((0..1000).all(|_| limit.check(None, address("192.0.2.1")).is_ok()));
        assert_eq!(limit.used_until.len(), 0);
        limit.set(2);
        assert_eq!((0..10).filter(|_| limit.check(None, address("192.0.2.1")).is_ok()).count(), 2);
    }
}

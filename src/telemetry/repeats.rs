//! What goes on and on is logged once in a while, whoever makes it happen.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the same is not logged again.
const REPEATED_AFTER: Duration = Duration::from_secs(60);
/// Messages that are remembered.
const REPEATS_MAX: usize = 64;

/// The messages that were logged lately, oldest first.
pub struct Repeats(Mutex<Vec<(String, Instant)>>);

impl Default for Repeats {
    fn default() -> Self {
        Repeats::new()
    }
}

impl Repeats {
    pub const fn new() -> Repeats {
        Repeats(Mutex::new(Vec::new()))
    }

    /// Whether this message was not logged lately. Then it is now.
    pub fn is_news(&self, message: &str) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|(_, time)| time.elapsed() < REPEATED_AFTER);
        if logged.iter().any(|(known, _)| known == message) {
            return false;
        }
        if logged.len() == REPEATS_MAX {
            logged.remove(0);
        }
        logged.push((message.to_owned(), Instant::now()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_logged_once() {
        let repeats = Repeats::new();
        let all: Vec<bool> = ["a", "b", "a", "a", "b", "c"].map(|message| repeats.is_news(message)).to_vec();
        assert_eq!(all, [true, true, false, false, false, true]);
        for number in 0..100 {
            assert!(repeats.is_news(&number.to_string()));
        }
        assert_eq!(repeats.0.lock().unwrap().len(), REPEATS_MAX);
    }
}

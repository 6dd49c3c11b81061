//! The settings that all drivers with a peer share, and their validation.

use std::time::Duration;

use serde::Deserialize;
use snaphook_driver::{Setting, SettingKind};

/// The setting `token`.
pub const TOKEN: Setting = Setting::optional("token", SettingKind::Secret, "a token, sent as `Authorization: Bearer`");

/// The setting `timeout`; its value is a [`Timeout`].
pub const TIMEOUT: Setting = Setting::with_default("timeout", SettingKind::Number, TIMEOUT_EXPECTED, "30");

const TIMEOUT_EXPECTED: &str = "a number of seconds from 1 to 600";

/// How long one request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Timeout(Duration);

impl Timeout {
    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for Timeout {
    fn default() -> Self {
        Timeout(Duration::from_secs(30))
    }
}

impl TryFrom<u64> for Timeout {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        match seconds {
            1..=600 => Ok(Timeout(Duration::from_secs(seconds))),
            _ => Err(format!("`timeout` is {seconds}, expected {TIMEOUT_EXPECTED}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_bounds_and_the_default_that_is_shown() {
        for (seconds, is_good) in [(0, false), (1, true), (600, true), (601, false), (u64::MAX, false)] {
            assert_eq!(Timeout::try_from(seconds).is_ok(), is_good, "{seconds}");
        }
        assert_eq!(TIMEOUT.default.as_deref(), Some(Timeout::default().get().as_secs().to_string().as_str()));
    }
}

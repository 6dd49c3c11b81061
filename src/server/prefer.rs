//! `Prefer` (RFC 7240): `return=minimal` and `wait=N`. Unknown or malformed preferences are ignored.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HeaderName;

use super::reply::Reply;

const PREFER: &str = "prefer";
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Longest wait for post hooks.
const WAIT_SECONDS_MAX: u64 = 60;

/// The client's preferences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefer {
    /// No body in the response.
    pub(super) minimal: bool,
    /// Delay the response until the post hooks have ended, at most this long.
    pub(super) wait: Option<Duration>,
}

impl Prefer {
    pub(super) fn of(headers: &HeaderMap) -> Prefer {
        let mut prefer = Prefer::default();
        // If a preference occurs twice, the first one counts (RFC 7240, section 2).
        let mut return_seen = false;
        let lines = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        for preference in lines.flat_map(|line| line.split(',')) {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "return" if !return_seen => {
                    return_seen = true;
                    prefer.minimal = value == "minimal";
                }
                "wait" if prefer.wait.is_none() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                    let seconds = value.parse::<u64>().ok();
                    prefer.wait = seconds.map(|seconds| Duration::from_secs(seconds.min(WAIT_SECONDS_MAX)));
                }
                _ => {}
            }
        }
        prefer
    }

    /// Adds the applied preferences to the response.
    pub(super) fn applied(self, reply: Reply) -> Reply {
        match (self.minimal, self.wait) {
            (false, None) => reply,
            (true, None) => reply.fixed(PREFERENCE_APPLIED, "return=minimal"),
            (minimal, Some(wait)) => {
                let minimal = if minimal { "return=minimal, " } else { "" };
                reply.header(PREFERENCE_APPLIED, &format!("{minimal}wait={}", wait.as_secs()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn reads() {
        let of = |line: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(PREFER, HeaderValue::from_static(line));
            Prefer::of(&headers)
        };
        let wait = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(of("return=minimal"), Prefer { minimal: true, wait: None });
        assert_eq!(of("respond-async, Return = \"minimal\"; x=1, wait=5"), Prefer { minimal: true, wait: wait(5) });
        assert_eq!(of("return=representation, return=minimal"), Prefer::default());
        assert_eq!(of("wait=100000"), Prefer { minimal: false, wait: wait(60) });
        for nothing in ["", "wait", "wait=", "wait=-1", "wait=1.5", "wait=x", "return", "minimal"] {
            assert_eq!(of(nothing), Prefer::default(), "{nothing}");
        }
    }
}

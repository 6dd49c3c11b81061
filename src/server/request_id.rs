//! `X-Request-Id`: the client's if it is valid, otherwise a new one.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LENGTH_MAX: usize = 128;

/// Creates request ids: one half is random per process, the other a counter. They look like UUIDs and need no
/// randomness per request.
pub(super) struct RequestIds {
    /// `xxxxxxxx-xxxx-xxxx-`, random.
    prefix: [u8; 19],
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        // A version 7 UUID ends in 62 random bits.
        let (_, random) = Uuid::now_v7().as_u64_pair();
        let mut prefix = *b"00000000-0000-0000-";
        let mut nibbles = random.rotate_left(8);
        for slot in prefix.iter_mut().filter(|slot| **slot == b'0') {
            *slot = hex(nibbles);
            nibbles = nibbles.rotate_left(4);
        }
        RequestIds { prefix, next: AtomicU64::new(1) }
    }

    /// The client's id, if it can be logged and returned unchanged.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        match headers.get(X_REQUEST_ID) {
            Some(id) if is_valid(id.as_bytes()) => id.clone(),
            _ => self.fresh(),
        }
    }

    fn fresh(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 36];
        id[..19].copy_from_slice(&self.prefix);
        let digits = [19, 20, 21, 22, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35];
        for (place, at) in digits.iter().rev().zip(0..) {
            id[*place] = hex(number >> (4 * at));
        }
        id[23] = b'-';
        // Only digits, letters and dashes: always a valid value.
        HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

fn hex(nibble: u64) -> u8 {
    b"0123456789abcdef"[(nibble & 15) as usize]
}

fn is_valid(id: &[u8]) -> bool {
    (1..=LENGTH_MAX).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: &RequestIds, sent: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(sent).expect("a header value"));
        ids.of(&headers).to_str().expect("visible").to_owned()
    }

    #[test]
    fn keeps_what_is_valid_and_replaces_the_rest() {
        let ids = RequestIds::new();
        assert_eq!(of(&ids, b"a.B_9-"), "a.B_9-");
        assert_eq!(of(&ids, "x".repeat(128).as_bytes()).len(), 128);
        for sent in [&b""[..], b"a b", b"a\xe9", "x".repeat(129).as_bytes()] {
            assert_eq!(of(&ids, sent).len(), 36);
        }
    }

    #[test]
    fn fresh_ids_look_like_uuids_and_differ() {
        let ids = RequestIds::new();
        let made: std::collections::HashSet<_> = (0..1000).map(|_| of(&ids, b" ")).collect();
        assert_eq!(made.len(), 1000);
        assert!(made.iter().all(|id| Uuid::try_parse(id).is_ok()), "{made:?}");
    }
}

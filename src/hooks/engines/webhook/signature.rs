//! The message of one event, and its signature by the scheme of Standard Webhooks (standardwebhooks.com, symmetric, `v1`).

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD;
use ring::hmac;
use serde::Serialize;
use snaphook_driver::Event;
use snaphook_driver::time::{self, Millis};

/// Prefix of a key.
const PREFIX: &str = "whsec_";

/// Allowed length of a key in bytes, as the scheme defines it.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// How many keys one secret may contain.
const KEYS_MAX: usize = 4;

/// Accepts keys with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The keys of a secret; during a rotation there are several, and the receiver may know any of them.
pub(super) struct Keys(Vec<hmac::Key>);

impl Keys {
    /// Parses `whsec_…`, or several of these separated by spaces or line breaks. The error is a clause that does not
    /// reveal the value.
    pub(super) fn parse(secret: &str) -> Result<Keys, String> {
        let mut keys = Vec::new();
        for word in secret.split_whitespace() {
            let text = word.strip_prefix(PREFIX).ok_or_else(|| expected("a key does not begin with `whsec_`"))?;
            let bytes = LENIENT.decode(text).map_err(|_| expected("a key is not base64"))?;
            if !KEY_BYTES.contains(&bytes.len()) {
                return Err(expected(&format!("a key has {} bytes", bytes.len())));
            }
            keys.push(hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        }
        match keys.len() {
            0 => Err(expected("it is empty")),
            1..=KEYS_MAX => Ok(Keys(keys)),
            more => Err(expected(&format!("it contains {more} keys"))),
        }
    }
}

fn expected(found: &str) -> String {
    format!(
        "{found}; expected `whsec_` and {} to {} bytes as base64, and while keys are rotated at most {KEYS_MAX} of \
         them, separated by spaces",
        KEY_BYTES.start(),
        KEY_BYTES.end()
    )
}

/// The message for one event.
pub(super) struct Message {
    pub(super) body: Vec<u8>,
    /// `webhook-id`: the event's id, so that it is the same in each attempt.
    pub(super) id: String,
    /// `webhook-timestamp`: the time of the attempt in seconds.
    pub(super) timestamp: String,
    /// `webhook-signature`: one for each key.
    pub(super) signature: String,
}

impl Message {
    /// The error is a clause.
    pub(super) fn new(event: &Event, keys: &Keys, now: Millis) -> Result<Message, String> {
        #[derive(Serialize)]
        struct Payload<'a> {
            #[serde(rename = "type")]
            kind: &'a str,
            timestamp: String,
            data: &'a Event,
        }
        let payload = Payload { kind: event.kind.as_str(), timestamp: time::format(event.time), data: event };
        // Only fails if somebody changed the log by hand.
        let body =
            serde_json::to_vec(&payload).map_err(|error| format!("the event's data is not valid JSON: {error}"))?;
        let (id, timestamp) = (event.id.clone(), (now / 1000).to_string());
        let sign = |key: &hmac::Key| {
            let mut context = hmac::Context::with_key(key);
            [id.as_bytes(), b".", timestamp.as_bytes(), b".", &body].iter().for_each(|part| context.update(part));
            format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
        };
        let signature = keys.0.iter().map(sign).collect::<Vec<_>>().join(" ");
        Ok(Message { body, id, timestamp, signature })
    }
}

#[cfg(test)]
mod tests {
    use snaphook_driver::{EventKind, Json, Stream};
    use snaphook_driver_testkit::sample;

    use super::*;

    #[test]
    fn what_is_no_key() {
        let key = format!("whsec_{}", BASE64_STANDARD.encode([7; 24]));
        for good in [key.clone(), format!("{key}\n"), format!(" {key}\n{key}  {key} {key}"), key.replace('=', "")] {
            assert!(Keys::parse(&good).is_ok(), "{good:?}");
        }
        let of = |bytes: usize| format!("whsec_{}", BASE64_STANDARD.encode(vec![7; bytes]));
        assert!(Keys::parse(&of(64)).is_ok());
        for (bad, words) in [
            (String::new(), "it is empty"),
            ("hunter2".to_owned(), "does not begin with `whsec_`"),
            ("whsec_hunter2!".to_owned(), "is not base64"),
            ("whsk_AAAA".to_owned(), "does not begin with `whsec_`"),
            (of(23), "has 23 bytes"),
            (of(65), "has 65 bytes"),
            (format!("{key} {key} {key} {key} {key}"), "contains 5 keys"),
        ] {
            let error = Keys::parse(&bad).map(drop).unwrap_err();
            assert!(error.starts_with("a key") || error.starts_with("it "), "{error}");
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
    }

    /// That other implementations take it is seen from outside, where one of them verifies.
    #[test]
    fn a_message_is_the_event_with_a_signature_for_each_key() {
        let key = |byte: u8| format!("whsec_{}", BASE64_STANDARD.encode([byte; 32]));
        let stream = Stream::of_instance("order", "o-1");
        let mut event = sample::event(EventKind::InstanceCreated, &stream, Some(r#"{"total":1.50}"#));
        (event.id, event.time) = ("e-1".to_owned(), 1_700_000_000_123);
        let keys = Keys::parse(&format!("{} {}", key(1), key(2))).unwrap();
        let message = Message::new(&event, &keys, 1_700_000_100_999).unwrap();
        let body = String::from_utf8(message.body).unwrap();
        let envelope = r#"{"type":"instance.created","timestamp":"2023-11-14T22:13:20.123Z","data":"#;
        assert_eq!(body, format!("{envelope}{}}}", serde_json::to_string(&event).unwrap()));
        assert!(body.contains(r#""data":{"total":1.50}"#), "the digits stay: {body}");
        assert_eq!((message.id.as_str(), message.timestamp.as_str()), ("e-1", "1700000100"));
        let signatures: Vec<_> = message.signature.split(' ').collect();
        assert_eq!(signatures.len(), 2);
        for (signature, byte) in signatures.iter().zip([1, 2]) {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
            let signed = format!("e-1.1700000100.{body}");
            let tag = BASE64_STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
            assert!(hmac::verify(&key, signed.as_bytes(), &tag).is_ok(), "{signature}");
        }
        event.data = Some(Json::trusted("{"));
        assert!(Message::new(&event, &keys, 0).map(drop).unwrap_err().contains("not valid JSON"));
    }
}

//! Checks the data that a guest returns and compares it with its input, without building a tree.
//!
//! A tree needs many times the memory of its text, and the guest chooses the text.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use snaphook_driver::Json;
use snaphook_driver::json::{self, Build, JsonError, Limits};
use tokio::sync::Semaphore;

use super::limits::{Broken, OUTPUT_BYTES_MAX};
use crate::hooks::context::{Failure, FailureCause, Outcome};

/// Up to this many bytes of JSON are processed on the caller's thread: a few hundred microseconds of work.
pub(super) const LIGHT_BYTES_MAX: usize = 128 << 10;

/// How many larger texts are processed at once; others wait, so that their memory and CPU time are bounded.
const HEAVY_MAX: usize = 2;

/// Checks that a guest's data is a single JSON value and differs from the original.
pub(super) async fn amended(data: Json, original: Option<Json>) -> Outcome {
    let bytes = data.len();
    if bytes > OUTPUT_BYTES_MAX {
        return Outcome::Failed(Broken::output("the data that it returned", bytes).0);
    }
    let looked = look(bytes, move || (is_unchanged(&data, original.as_ref()), data)).await;
    let failure = match looked {
        // Returning the original data is not a change, whatever the grant says.
        Ok((Ok(true), _)) => return Outcome::Accept,
        Ok((Ok(false), data)) => return Outcome::Amend(data),
        Ok((Err(error), _)) => {
            let message = format!("the data that it returned is not valid JSON: {error}");
            Failure { cause: FailureCause::Amend, message, limit: None }
        }
        Err(failure) => failure,
    };
    Outcome::Failed(failure)
}

/// Whether `text` has the same value as `original`, ignoring whitespace and the order of members; an error if it is not
/// JSON.
pub(super) fn is_unchanged(text: &str, original: Option<&Json>) -> Result<bool, JsonError> {
    let Some(original) = original else { return print(text).map(|_| false) };
    if original.as_str() == text {
        return Ok(true);
    }
    Ok(print(text)? == print(original)?)
}

/// Processes `bytes` of JSON: directly if they are few, otherwise on a thread that serves no requests.
pub(super) async fn look<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    static PLACES: Semaphore = Semaphore::const_new(HEAVY_MAX);
    if bytes <= LIGHT_BYTES_MAX {
        return Ok(work());
    }
    // The semaphore is never closed; without a permit the work would merely be unbounded.
    let _place = PLACES.acquire().await.ok();
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure {
        cause: FailureCause::Internal,
        message: format!("the hook's data could not be checked: {error}"),
        limit: None,
    })
}

/// Computes fingerprints of parts of a JSON text. The key is specific to the process, so nobody can construct two texts
/// with the same fingerprint.
pub(super) struct Printer(RandomState);

impl Printer {
    pub(super) fn get() -> &'static Printer {
        static PRINTER: LazyLock<Printer> = LazyLock::new(|| Printer(RandomState::new()));
        &PRINTER
    }

    pub(super) fn text(&self, text: &str) -> u64 {
        self.0.hash_one((b's', text))
    }

    /// The fingerprint of a number, from the bits of its value.
    pub(super) fn number(&self, bits: u64) -> u64 {
        self.0.hash_one((b'n', bits))
    }

    /// The fingerprint of a number, from its text.
    pub(super) fn digits(&self, text: &str) -> u64 {
        self.0.hash_one((b'd', text))
    }

    /// `null`, `true` and `false`.
    pub(super) fn word(&self, word: &str) -> u64 {
        self.0.hash_one((b'w', word))
    }

    /// `before` is the fingerprint of the list so far, 0 at its start.
    pub(super) fn item(&self, before: u64, item: u64) -> u64 {
        self.0.hash_one((b'i', before, item))
    }

    pub(super) fn list(&self, items: u64) -> u64 {
        self.0.hash_one((b'l', items))
    }

    /// The fingerprint of a member; these are added, so that the order does not matter.
    pub(super) fn member(&self, name: u64, value: u64) -> u64 {
        self.0.hash_one((b'm', name, value))
    }

    pub(super) fn object(&self, members: u64) -> u64 {
        self.0.hash_one((b'o', members))
    }
}

/// The fingerprint of a whole text. Numbers are only equal if they have the same digits.
fn print(text: &str) -> Result<u64, JsonError> {
    json::read(text, Limits::default(), &mut Prints(Printer::get())).map(|(print, _)| print)
}

/// Builds a fingerprint of each value instead of the value itself.
struct Prints(&'static Printer);

impl Build for Prints {
    type Value = u64;
    /// The fingerprint of the items so far, in order.
    type List = u64;
    /// Sum of the members so far.
    type Object = u64;

    fn null(&mut self) -> u64 {
        self.0.word("null")
    }

    fn boolean(&mut self, value: bool) -> u64 {
        self.0.word(if value { "true" } else { "false" })
    }

    fn number(&mut self, text: &str) -> u64 {
        self.0.digits(text)
    }

    fn string(&mut self, text: Cow<'_, str>) -> u64 {
        self.0.text(&text)
    }

    fn item(&mut self, list: &mut u64, item: u64) {
        *list = self.0.item(*list, item);
    }

    fn list(&mut self, list: u64) -> u64 {
        self.0.list(list)
    }

    // A duplicate name changes the sum, so the text counts as changed and is then parsed strictly.
    fn member(&mut self, object: &mut u64, name: Cow<'_, str>, value: u64) -> bool {
        *object = object.wrapping_add(self.0.member(self.0.text(&name), value));
        true
    }

    fn object(&mut self, object: u64) -> u64 {
        self.0.object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn unchanged(text: &str, original: &str) -> bool {
        is_unchanged(text, Some(&Json::trusted(original))).unwrap()
    }

    #[test]
    fn order_and_spacing_do_not_matter_and_values_do() {
        let original = r#"{"a":[1,2,{"b":null}],"c":"x","d":1.0}"#;
        assert!(unchanged(r#" { "d":1.0, "c":"\u0078", "a":[1,2,{"b":null}] } "#, original));
        for other in [
            r#"{"a":[2,1,{"b":null}],"c":"x","d":1.0}"#,
            r#"{"a":[1,2,{"b":false}],"c":"x","d":1.0}"#,
            r#"{"a":[1,2,{"b":null}],"c":"y","d":1.0}"#,
            r#"{"a":[1,2,{"b":null}],"c":"x","d":1}"#,
            r#"{"a":[1,[2,{"b":null}]],"c":"x","d":1.0}"#,
            r#"{"a":[1,2,{"b":null}],"c":"x"}"#,
            r#"{"a":[1,"2",{"b":null}],"c":"x","d":1.0}"#,
            r#"{"a":[1,2,{"b":null}],"c":"x","d":{"$serde_json::private::Number":"1.0"}}"#,
            r#"{"a":[1,2,{"b":null}],"c":"x","d":1.0,"d":1.0}"#,
        ] {
            assert!(!unchanged(other, original), "{other}");
        }
        assert!(!is_unchanged("{}", None).unwrap());
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", "{} {}", r#"{"a":"\ud800"}"#, "{'a':1}", "[1e]", &"[".repeat(100_000)] {
            assert!(is_unchanged(text, Some(&Json::trusted("{}"))).is_err(), "{text:.20}");
        }
    }
}

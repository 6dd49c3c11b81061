//! Converts the runner's answer (see runner/main.js) into an outcome.

use std::sync::Arc;

use serde::Deserialize;
use snaphook_driver::Json;

use super::digits::{Digits, Restored};
use super::nodes::{NODES_MAX, nodes_bytes};
use super::source::Source;
use crate::hooks::context::{Context, Failure, FailureCause, FieldError, Outcome, Rejection};
use crate::hooks::engines::handback::{LIGHT_BYTES_MAX, is_unchanged, look};
use crate::hooks::engines::limits::{Broken, OUTPUT_BYTES_MAX, stack_failure};
use crate::hooks::host_memory::HostMemory;

/// The engines' name for evaluated text in stacks.
const EVALUATED: &str = "<input>:";

/// V8's error for a buffer that does not fit into memory.
pub(in crate::hooks::engines) const ALLOCATION_FAILED: &str = "Array buffer allocation failed";

/// The runner's answer, with the context for reading it.
pub(in crate::hooks::engines) struct Reading {
    pub(in crate::hooks::engines) answer: String,
    pub(in crate::hooks::engines) digits: Digits,
    pub(in crate::hooks::engines) marker: String,
    /// If the sandbox was refused memory in this call.
    pub(in crate::hooks::engines) memory_failure: Option<Failure>,
    /// The server's memory for the run.
    pub(in crate::hooks::engines) memory: Arc<HostMemory>,
}

/// The content of an answer.
pub(in crate::hooks::engines) struct Read {
    pub(in crate::hooks::engines) outcome: Outcome,
    /// Whether the run left no pending work in the sandbox.
    pub(in crate::hooks::engines) is_clean: bool,
    /// `after` was changed and not returned.
    pub(in crate::hooks::engines) has_lost_change: bool,
}

impl Read {
    const fn failed(failure: Failure) -> Read {
        Read { outcome: Outcome::Failed(failure), is_clean: false, has_lost_change: false }
    }
}

impl Reading {
    pub(in crate::hooks::engines) async fn read(self, context: &Context, source: &Arc<Source>) -> Read {
        let bytes = self.answer.len();
        if bytes <= LIGHT_BYTES_MAX {
            return self.outcome(context, source);
        }
        let (context, source) = (context.clone(), Arc::clone(source));
        let read = look(bytes, move || self.outcome(&context, &source)).await;
        read.unwrap_or_else(Read::failed)
    }

    fn outcome(self, context: &Context, source: &Source) -> Read {
        let Reading { answer, digits, marker, memory_failure, memory } = self;
        // For the answer, and the data parsed from it.
        let _held = match memory.hold(2 * answer.len()) {
            Ok(held) => held,
            Err(failure) => return Read::failed(failure),
        };
        Reader { context, source, digits: &digits, marker: &marker, memory_failure, memory: &memory }.outcome(&answer)
    }
}

/// A thrown value.
#[derive(Debug, Deserialize)]
struct Thrown {
    #[serde(default)]
    name: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    stack: String,
    /// Set if it was not an Error: the value.
    thrown: Option<String>,
}

/// The context for reading an answer.
struct Reader<'a> {
    context: &'a Context,
    source: &'a Source,
    digits: &'a Digits,
    /// The marker for an infinite number.
    marker: &'a str,
    /// If the sandbox was refused memory in this call.
    memory_failure: Option<Failure>,
    memory: &'a HostMemory,
}

impl Reader<'_> {
    /// The grant `amend` is not checked here.
    fn outcome(&self, answer: &str) -> Read {
        let (Some(kind), Some(left), Some(body)) = (answer.get(..1), answer.get(1..2), answer.get(2..)) else {
            let message = "the runner returned no result".into();
            return Read::failed(Failure { cause: FailureCause::Internal, message, limit: None });
        };
        let outcome = match kind {
            "a" | "l" => Outcome::Accept,
            "m" => self.amended(body),
            "o" => Outcome::Failed(Broken::output("the data that it returned", body.parse().unwrap_or(0)).0),
            "t" => failed(FailureCause::Amend, format!("returned {body}")),
            "j" => self.no_json(body),
            "r" => self.rejected(body),
            "e" => Outcome::Failed(self.thrown(body)),
            _ => failed(FailureCause::Internal, format!("the runner returned an unknown result `{kind}`")),
        };
        Read { outcome, is_clean: left == "0", has_lost_change: kind == "l" }
    }

    fn amended(&self, text: &str) -> Outcome {
        if text.len() > OUTPUT_BYTES_MAX {
            return Outcome::Failed(Broken::output("the data that it returned", text.len()).0);
        }
        let original = self.context.after.as_ref();
        let unchanged = match is_unchanged(text, original) {
            Ok(unchanged) => unchanged,
            Err(error) => {
                return failed(FailureCause::Amend, format!("the data that it returned cannot be stored: {error}"));
            }
        };
        let restored = match self.digits.is_plain() {
            _ if unchanged => Restored::Unchanged,
            true => Restored::Changed(text.to_owned()),
            false => {
                let original = original.map(Json::as_str);
                let _held = match self.memory.hold(nodes_bytes(text) + original.map_or(0, nodes_bytes)) {
                    Ok(held) => held,
                    Err(failure) => return Outcome::Failed(failure),
                };
                self.digits.restore(text, original, self.marker)
            }
        };
        let data = match restored {
            // Returning the data unchanged is not an amendment, regardless of the grant.
            Restored::Unchanged => return Outcome::Accept,
            Restored::Changed(data) => data,
            Restored::TooMany => {
                let message = format!(
                    "the data that it returned has more than {NODES_MAX} values, too many to find the digits of its \
                     large numbers again"
                );
                return failed(FailureCause::Output, message);
            }
        };
        if !self.context.phase.may_amend() {
            let message = format!("returned data, but in `{}` there is no data that could change", self.context.phase);
            return failed(FailureCause::Amend, message);
        }
        Outcome::Amend(Json::trusted(data))
    }

    fn no_json(&self, body: &str) -> Outcome {
        match self.special(body) {
            Ok(failure) => Outcome::Failed(failure),
            Err(thrown) => failed(
                FailureCause::Amend,
                format!("the data that it returned is not valid JSON: {}", sentence(&thrown)),
            ),
        }
    }

    fn rejected(&self, body: &str) -> Outcome {
        #[derive(Deserialize)]
        struct RejectBody {
            message: String,
            fields: Vec<FieldError>,
        }
        let Ok(RejectBody { message, mut fields }) = snaphook_driver::json::typed(body) else {
            return failed(FailureCause::Exception, "threw a Reject that cannot be read".into());
        };
        if !self.context.phase.is_pre() {
            let message = format!("threw Reject: {message}; a stored change can no longer be rejected");
            return failed(FailureCause::Exception, message);
        }
        for field in &mut fields {
            if !field.pointer.is_empty() && !field.pointer.starts_with('/') {
                field.pointer.insert(0, '/');
            }
        }
        Outcome::Reject(Rejection { message, fields })
    }

    /// The thrown value, as a failure with line and column in the author's source.
    fn thrown(&self, body: &str) -> Failure {
        match self.special(body) {
            Ok(failure) => failure,
            Err(thrown) => {
                let text = sentence(&thrown);
                let message = match self.place(&thrown.stack) {
                    // It may end with lines of configuration, which must stay intact for copying.
                    Some(place) if text.contains('\n') => format!("threw at {place}: {text}"),
                    Some(place) => format!("threw {text} ({place})"),
                    None => format!("threw {text}"),
                };
                Failure { cause: FailureCause::Exception, message, limit: None }
            }
        }
    }

    /// Errors by which the engines report an exceeded limit.
    fn special(&self, body: &str) -> Result<Failure, Thrown> {
        let thrown: Thrown = match snaphook_driver::json::typed(body) {
            Ok(thrown) => thrown,
            Err(error) => {
                let message = format!("threw something that cannot be read: {error}");
                return Ok(Failure { cause: FailureCause::Exception, message, limit: None });
            }
        };
        // If not even an error fits into memory, QuickJS throws null; if only its text does not, the error says so.
        let out_of_memory =
            matches!(thrown.message.as_str(), "out of memory" | "Invalid error message" | ALLOCATION_FAILED)
                || thrown.thrown.as_deref() == Some("null");
        if out_of_memory && let Some(failure) = &self.memory_failure {
            return Ok(failure.clone());
        }
        let deep = thrown.name == "RangeError" && thrown.message.contains("call stack")
            || thrown.name == "InternalError" && thrown.message.contains("stack overflow");
        if deep { Ok(stack_failure()) } else { Err(thrown) }
    }

    /// The place of the innermost frame in the author's source; without one, the place in the bundle.
    fn place(&self, stack: &str) -> Option<String> {
        let frames = || stack.lines().filter_map(frame);
        let place = frames().find_map(|(line, column)| self.source.place(line, column));
        place
            .or_else(|| frames().find_map(|(line, column)| self.source.position(line, column)).map(|it| it.to_string()))
    }
}

/// Line and column of a frame of the evaluated text.
fn frame(line: &str) -> Option<(u32, u32)> {
    let (_, place) = line.split_once(EVALUATED)?;
    let mut numbers = place.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next().and_then(|column| column.parse().ok()).unwrap_or(1)))
}

/// Line and column of a compile error, in the evaluated text.
pub(in crate::hooks::engines) fn compile_error(body: &str) -> (String, Option<(u32, u32)>) {
    let Ok(thrown) = snaphook_driver::json::typed::<Thrown>(body) else { return (body.to_owned(), None) };
    let place = thrown.stack.lines().find_map(frame);
    (sentence(&thrown), place)
}

fn sentence(thrown: &Thrown) -> String {
    match &thrown.thrown {
        Some(value) => format!("{value}, which is not an Error"),
        None if thrown.message.is_empty() => thrown.name.clone(),
        None => format!("{}: {}", thrown.name, thrown.message),
    }
}

fn failed(cause: FailureCause, message: String) -> Outcome {
    Outcome::Failed(Failure { cause, message, limit: None })
}

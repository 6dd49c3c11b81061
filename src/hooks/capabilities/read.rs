//! `read`: instances and events of granted models.

use std::time::Duration;

use serde::Serialize;

use super::super::access::{AccessCode, AccessError};
use super::super::grants::{Capability, toml_string};
use super::super::pattern::any_matches;
use super::super::session::{HostError, Session};
use super::check_name;
use crate::config::format_size;

/// A read is a local lookup; one that takes longer will not come.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// Text of a query that a guest may send.
const QUERY_BYTES_MAX: usize = 64 * 1024;

/// What one read may give to the guest: one largest payload and what stands around it.
const ANSWER_BYTES_MAX: usize = snaphook_driver::PAYLOAD_BYTES_MAX + 64 * 1024;

impl Session {
    /// The instance as JSON text; `None` if there is none.
    pub async fn read_get(&self, model: &str, id: &str) -> Result<Option<String>, HostError> {
        self.count_call()?;
        check_name("the id of an instance", id)?;
        self.check_read(model)?;
        let what = format_args!("read of `{model}/{id}`").to_string();
        let instance = self.within(READ_DEADLINE, &what, self.services.access.get(model, id)).await?;
        instance.map(|instance| to_text(&instance, &what)).transpose()
    }

    /// `{items, next}` as JSON text; `query` as in [`super::super::access::Access::query`].
    pub async fn read_query(&self, model: &str, query: &str) -> Result<String, HostError> {
        self.count_call()?;
        self.check_read(model)?;
        let what = format!("query of `{model}`");
        if query.len() > QUERY_BYTES_MAX {
            return Err(too_large(&what, query.len(), QUERY_BYTES_MAX).into());
        }
        let page = self.within(READ_DEADLINE, &what, self.services.access.query(model, query)).await?;
        to_text(&page, &what)
    }

    /// The event as JSON text. Needs read on the event's model.
    pub async fn read_event(&self, position: u64) -> Result<Option<String>, HostError> {
        self.count_call()?;
        let what = format!("read of event {position}");
        // The model is known only with the event, but a hook that may read nothing must not learn which positions
        // exist.
        if self.granted.read.is_empty() {
            self.check_read(&self.hook().model.clone())?;
        }
        let Some(event) = self.within(READ_DEADLINE, &what, self.services.access.event(position)).await? else {
            return Ok(None);
        };
        self.check_read(&event.model)?;
        to_text(&event, &what).map(Some)
    }

    fn check_read(&self, model: &str) -> Result<(), HostError> {
        check_name("the id of a model", model)?;
        let verdict = match any_matches(&self.granted.read, model) {
            true => Ok(()),
            false => {
                let value = format!("[{}]", toml_string(model));
                Err(self.granted.denial(Capability::Read, &format!("read of model `{model}`"), &value, |grant| {
                    any_matches(&grant.read, model)
                }))
            }
        };
        self.check(Capability::Read, model, verdict)
    }
}

/// The refusal of something larger than allowed.
pub(super) fn too_large(what: &str, bytes: usize, limit: usize) -> AccessError {
    AccessError::new(
        AccessCode::TooLarge,
        format!("{what} is {bytes} bytes, at most {} are allowed", format_size(limit)),
    )
}

fn to_text(value: &impl Serialize, what: &str) -> Result<String, HostError> {
    let text = serde_json::to_string(value)
        .map_err(|error| AccessError::new(AccessCode::Failed, format!("{what}: {error}")))?;
    match text.len() > ANSWER_BYTES_MAX {
        true => Err(too_large(&format!("the answer to the {what}"), text.len(), ANSWER_BYTES_MAX).into()),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::access::AccessCode;
    use super::super::super::testing::{Bench, access_error};
    use crate::config::Phase;

    #[tokio::test]
    async fn granted_models_only() {
        let bench =
            Bench::new().with_instance("customer", "c1", r#"{"name":"Ada"}"#).with_instance("staff", "s1", "{}");
        let session = bench.session("invoice", Phase::PreCreate, "check", "read = ['cust*']");
        let text = session.read_get("customer", "c1").await.unwrap().unwrap();
        assert!(text.contains(r#""data":{"name":"Ada"}"#), "{text}");
        assert!(session.read_get("customer", "c2").await.unwrap().is_none());
        assert!(session.read_query("customer", "{}").await.unwrap().contains("c1"));

        for error in [
            session.read_get("staff", "s1").await.unwrap_err(),
            session.read_query("staff", "{}").await.unwrap_err(),
            // Globs hold for the whole name.
            session.read_get("xcustomer", "c1").await.unwrap_err(),
        ] {
            assert_eq!(access_error(error).code, AccessCode::Denied);
        }
    }

    #[tokio::test]
    async fn the_message_holds_lines_that_open_it() {
        let bench = Bench::new().with_instance("staff", "s1", "{}");
        let session = bench.session("invoice", Phase::PreCreate, "check", "");
        let message = access_error(session.read_get("staff", "s1").await.unwrap_err()).message;
        assert_eq!(
            message,
            "hook `invoice.preCreate/check` asked for read of model `staff`, which no grant opens; to allow it, add to \
             config.toml:\n[[grants]]\nmodel = 'invoice'\nphase = 'preCreate'\nhook = 'check'\nread = ['staff']"
        );
        let session = bench.session_after(&message, "invoice", Phase::PreCreate, "check");
        assert!(session.read_get("staff", "s1").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn events_need_read_on_their_model() {
        let bench = Bench::new().with_instance("customer", "c1", "{}").with_instance("staff", "s1", "{}");
        let session = bench.session("invoice", Phase::PostCreate, "mail", "read = ['customer']");
        assert!(session.read_event(1).await.unwrap().unwrap().contains("customer"));
        assert_eq!(access_error(session.read_event(2).await.unwrap_err()).code, AccessCode::Denied);
        assert!(session.read_event(3).await.unwrap().is_none());
        let session = bench.session("invoice", Phase::PostCreate, "mail", "");
        assert_eq!(access_error(session.read_event(3).await.unwrap_err()).code, AccessCode::Denied);
    }

    #[tokio::test]
    async fn large_answers_and_queries_are_refused() {
        let text = format!("{{\"text\":\"{}\"}}", "x".repeat(9 << 20));
        let bench = Bench::new().with_instance("large", "l", &text);
        let session = bench.session("invoice", Phase::PostCreate, "mail", "read = ['*']");
        assert_eq!(access_error(session.read_get("large", "l").await.unwrap_err()).code, AccessCode::TooLarge);
        let query = " ".repeat(65 * 1024);
        assert_eq!(access_error(session.read_query("large", &query).await.unwrap_err()).code, AccessCode::TooLarge);
    }
}

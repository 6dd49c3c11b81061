//! `read`: instances and events of granted models.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use snaphook_driver::{InstancePage, json};
use snaphook_identity::glob::any_matches;

use super::super::access::{AccessCode, AccessError};
use super::super::grants::{Capability, toml_string};
use super::super::host_memory::Held;
use super::super::session::{HostError, Session};
use super::check_name;
use crate::catalog::query::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::config::format_size;

/// A read is a local lookup; one that takes longer will not succeed.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// Longest text of a guest's query.
const QUERY_BYTES_MAX: usize = 64 * 1024;

/// How much one read may return to the guest: the largest payload and its envelope.
const ANSWER_BYTES_MAX: usize = snaphook_driver::PAYLOAD_BYTES_MAX + 64 * 1024;

/// How many instances are read at once: a page without an explicit limit.
const PART_ITEMS: usize = LIMIT_DEFAULT as usize;

/// Size of the envelope around an instance's data.
const INSTANCE_BYTES: usize = 512;

impl Session {
    /// The instance as JSON text; `None` if it does not exist.
    pub async fn read_get(&self, model: &str, id: &str) -> Result<Option<String>, HostError> {
        self.count_call()?;
        check_name("the id of an instance", id)?;
        self.check_read(model)?;
        let what = format_args!("read of `{model}/{id}`").to_string();
        let get = match &self.ahead {
            Some(ahead) => ahead.get(model, id, &self.right),
            None => self.services.access.get(model, id, &self.right),
        };
        let Some(instance) = self.within(READ_DEADLINE, &what, get).await? else { return Ok(None) };
        self.saw([&instance]);
        let _held = self.hold(2 * instance.data.len())?;
        to_text(&instance, &what).map(Some)
    }

    /// `{items, next}` as JSON text; `query` as in [`super::super::access::Access::query`].
    pub async fn read_query(&self, model: &str, query: &str) -> Result<String, HostError> {
        self.count_call()?;
        self.check_read(model)?;
        let what = format!("query of `{model}`");
        if query.len() > QUERY_BYTES_MAX {
            return Err(too_large(&what, query.len(), QUERY_BYTES_MAX).into());
        }
        let mut held = self.hold(0)?;
        let page = self.page(model, query, &what, &mut held).await?;
        self.saw(&page.items);
        // The serialised text exists at the same time as the page.
        held.grow(bytes_of(&page))?;
        to_text(&page, &what)
    }

    /// A page that fits into a response; if it would be larger, it ends early, with a cursor. A large page is read in
    /// parts, so that little is read beyond what fits.
    async fn page(&self, model: &str, query: &str, what: &str, held: &mut Held<'_>) -> Result<InstancePage, HostError> {
        let ask = async |query: &str| {
            let found = match &self.ahead {
                Some(ahead) => ahead.query(model, query, &self.right),
                None => self.services.access.query(model, query, &self.right),
            };
            self.within(READ_DEADLINE, &what, found).await
        };
        let Some((mut fields, limit)) = large(query) else {
            let page = ask(query).await?;
            held.grow(bytes_of(&page))?;
            return Ok(page);
        };
        let mut page = InstancePage { items: Vec::with_capacity(limit), next: None };
        let (mut bytes, mut part) = (0, PART_ITEMS);
        while page.items.len() < limit {
            fields.insert("limit".into(), part.min(limit - page.items.len()).into());
            let mut found = ask(&Value::Object(fields.clone()).to_string()).await?;
            let fits = found.items.iter().take_while(|item| {
                bytes += item.data.len() + INSTANCE_BYTES;
                bytes <= ANSWER_BYTES_MAX
            });
            let fits = fits.count();
            if fits < found.items.len() {
                // An instance that does not fit even alone makes the page fail, as it would if it were read by its id.
                if fits > 0 {
                    fields.insert("limit".into(), fits.into());
                    found = ask(&Value::Object(fields).to_string()).await?;
                }
                if fits > 0 || page.items.is_empty() {
                    held.grow(bytes_of(&found))?;
                    page.items.append(&mut found.items);
                    page.next = found.next;
                }
                return Ok(page);
            }
            held.grow(bytes_of(&found))?;
            page.items.append(&mut found.items);
            page.next = found.next;
            let Some(next) = &page.next else { break };
            fields.insert("cursor".into(), next.as_str().into());
            // Read no more than probably fit, given the average size so far.
            let mean_bytes = (bytes / page.items.len().max(1)).max(1);
            part = (ANSWER_BYTES_MAX.saturating_sub(bytes) / mean_bytes).clamp(1, PART_ITEMS);
        }
        Ok(page)
    }

    /// The event as JSON text. Needs a `read` grant for the event's model.
    pub async fn read_event(&self, position: u64) -> Result<Option<String>, HostError> {
        self.count_call()?;
        let what = format!("read of event {position}");
        // The model is only known once the event is read, but a hook without any read grant must not learn which
        // positions exist.
        if self.granted.read.is_empty() {
            // Suggest a grant for the hook's own model, or the widest one for code without a model.
            let own = self.grantee().hook().map_or("*", |hook| &*hook.model).to_owned();
            self.check_read(&own)?;
        }
        let Some(event) = self.within(READ_DEADLINE, &what, self.services.access.event(position, &self.right)).await?
        else {
            return Ok(None);
        };
        match self.check_read(&event.model) {
            // The hook's log, which the hook cannot read, names the model and the lines that would grant access.
            Err(HostError::Access(error)) => {
                let message = format!("{} asked for event {position}, whose model no grant opens", self.grantee());
                return Err(AccessError::new(error.code, message).into());
            }
            checked => checked?,
        }
        let _held = self.hold(2 * event.data.as_ref().map_or(0, |data| data.len()))?;
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

/// Bytes of a page: its data and the envelopes.
fn bytes_of(page: &InstancePage) -> usize {
    page.items.iter().map(|item| item.data.len() + INSTANCE_BYTES).sum()
}

/// The error for something larger than allowed.
pub(super) fn too_large(what: &str, bytes: usize, limit: usize) -> AccessError {
    AccessError::new(
        AccessCode::TooLarge,
        format!("{what} is {bytes} bytes, at most {} are allowed", format_size(limit)),
    )
}

/// For a query for more items than are read at once, its members and its limit. `None` if the query asks for fewer, or
/// is invalid in a way that the server reports.
fn large(query: &str) -> Option<(Map<String, Value>, usize)> {
    let Value::Object(fields) = json::parse(query).ok()? else { return None };
    let limit = match fields.get("limit") {
        Some(limit) => limit.as_u64().filter(|limit| *limit <= u64::from(LIMIT_MAX))? as usize,
        None => LIMIT_DEFAULT as usize,
    };
    (limit > PART_ITEMS).then_some((fields, limit))
}

fn to_text(value: &impl Serialize, what: &str) -> Result<String, HostError> {
    let text = serde_json::to_string(value)
        .map_err(|error| AccessError::new(AccessCode::Failed, format!("{what}: {error}")))?;
    match text.len() > ANSWER_BYTES_MAX {
        true => Err(too_large(&format!("the response to the {what}"), text.len(), ANSWER_BYTES_MAX).into()),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        let error = access_error(session.read_event(2).await.unwrap_err());
        assert_eq!(error.code, AccessCode::Denied);
        assert!(!error.message.contains("staff"), "{}", error.message);
        assert!(session.finish().0[0].message.contains("staff"), "the admin learns which model it was");
        assert!(session.read_event(3).await.unwrap().is_none());
        let session = bench.session("invoice", Phase::PostCreate, "mail", "");
        assert_eq!(access_error(session.read_event(3).await.unwrap_err()).code, AccessCode::Denied);
    }

    #[tokio::test]
    async fn a_page_ends_where_an_answer_is_full() {
        let mut bench = Bench::new();
        let (large, small) = (format!("{{\"text\":\"{}\"}}", "x".repeat(1 << 20)), "{}");
        for index in 0..300 {
            bench = bench.with_instance("small", &format!("{index:03}"), small);
            bench = bench.with_instance("mixed", &format!("{index:03}"), if index < 60 { small } else { &large });
        }
        let session = bench.session("invoice", Phase::PostCreate, "mail", "read = ['*']");
        let page = async |model: &str, query: serde_json::Value| {
            let text = session.read_query(model, &query.to_string()).await.unwrap();
            let page = snaphook_driver::json::parse(&text).unwrap();
            (page["items"].as_array().unwrap().len(), page["next"].as_str().map(str::to_owned))
        };
        assert_eq!(page("small", json!({ "limit": 1000 })).await, (300, None));
        assert_eq!(page("small", json!({ "limit": 200 })).await, (200, Some("199".to_owned())));
        assert_eq!(page("small", json!({})).await, (50, Some("049".to_owned())));
        let (items, next) = page("mixed", json!({ "limit": 1000 })).await;
        assert_eq!((items, next.as_deref()), (68, Some("067")), "60 small ones and 8 of 1 MiB");
        assert_eq!(page("mixed", json!({ "limit": 1000, "cursor": "067" })).await.0, 8);
        assert_eq!(bench.access.largest_page(), 50);
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

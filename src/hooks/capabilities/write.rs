//! `write`: commands of post hooks on granted models. They are validated, run hooks and are logged like any other
//! command; the server rejects one that would make the chain of causes too deep.

use std::time::Duration;

use snaphook_driver::{Instance, Json, PAYLOAD_BYTES_MAX};
use snaphook_identity::glob::any_matches;

use super::super::access::{AccessCode, AccessError};
use super::super::grants::{Capability, toml_string};
use super::super::session::{HostError, Session};
use super::check_name;
use super::read::too_large;

/// A write runs pre hooks and waits for the disk.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

impl Session {
    /// `data` is JSON text; returns the instance as JSON text.
    pub async fn write_create(&self, model: &str, id: Option<&str>, data: &str) -> Result<String, HostError> {
        self.check_write(model, id, data)?;
        let author = self.author();
        let what = format!("create in `{model}`");
        // The data as the engine keeps it, and the instance that comes back.
        let _held = self.hold(2 * data.len())?;
        let call = self.services.access.create(&author, model, id, data);
        self.written(model, Some(data), self.within(WRITE_DEADLINE, &what, call).await)
    }

    pub async fn write_update(
        &self,
        model: &str,
        id: &str,
        data: &str,
        expected: Option<u64>,
    ) -> Result<String, HostError> {
        self.check_write(model, Some(id), data)?;
        let author = self.author();
        let what = format!("update of `{model}/{id}`");
        // The data as the engine keeps it, and the instance that comes back.
        let _held = self.hold(2 * data.len())?;
        let expected = expected.map(|position| self.expected(model, id, position));
        let call = self.services.access.update(&author, model, id, data, expected);
        self.written(model, Some(data), self.within(WRITE_DEADLINE, &what, call).await)
    }

    pub async fn write_delete(&self, model: &str, id: &str, expected: Option<u64>) -> Result<String, HostError> {
        self.check_write(model, Some(id), "")?;
        let author = self.author();
        let what = format!("delete of `{model}/{id}`");
        let expected = expected.map(|position| self.expected(model, id, position));
        let call = self.services.access.delete(&author, model, id, expected);
        self.written(model, None, self.within(WRITE_DEADLINE, &what, call).await)
    }

    /// What a hook learns about its write. Without a `read` grant for the model, it only sees the data that it sent,
    /// and of conflicting instances only that they exist.
    fn written(
        &self,
        model: &str,
        sent: Option<&str>,
        result: Result<Instance, HostError>,
    ) -> Result<String, HostError> {
        if any_matches(&self.granted.read, model) {
            return to_text(&result?);
        }
        match result {
            Ok(instance) => to_text(&Instance { data: Json::trusted(sent.unwrap_or("null")), ..instance }),
            Err(HostError::Access(AccessError { code, message })) => {
                let why = match code {
                    AccessCode::Exists => "the id or a unique value is taken",
                    AccessCode::Conflict => "it is not at the expected position, or somebody else changed it meanwhile",
                    AccessCode::NotFound => "there is no such model or instance",
                    _ => return Err(AccessError { code, message }.into()),
                };
                Err(AccessError::new(code, format!("write to `{model}`: {why}; a read grant for it shows more")).into())
            }
            Err(fatal) => Err(fatal),
        }
    }

    fn check_write(&self, model: &str, id: Option<&str>, data: &str) -> Result<(), HostError> {
        self.count_call()?;
        check_name("the id of a model", model)?;
        check_name("the id of an instance", id.unwrap_or_default())?;
        let asked = format!("write to model `{model}`");
        let verdict = match any_matches(&self.granted.write, model) {
            true => Ok(()),
            false => {
                let value = format!("[{}]", toml_string(model));
                Err(self.granted.denial(Capability::Write, &asked, &value, |grant| any_matches(&grant.write, model)))
            }
        };
        self.check(Capability::Write, model, verdict)?;
        match data.len() > PAYLOAD_BYTES_MAX {
            true => Err(too_large("the data", data.len(), PAYLOAD_BYTES_MAX).into()),
            false => Ok(()),
        }
    }
}

fn to_text(instance: &Instance) -> Result<String, HostError> {
    serde_json::to_string(instance)
        .map_err(|error| AccessError::new(AccessCode::Failed, format!("the instance: {error}")).into())
}

#[cfg(test)]
mod tests {
    use snaphook_driver::{Actor, ActorKind};

    use super::super::super::access::AccessCode;
    use super::super::super::testing::{Bench, access_error};
    use crate::config::Phase;

    #[tokio::test]
    async fn granted_models_only_with_cause() {
        let bench = Bench::new();
        let session = bench.session("invoice", Phase::PostCreate, "mail", "write = ['audit-*']");
        let text = session.write_create("audit-1", Some("a"), r#"{"n":1}"#).await.unwrap();
        assert!(text.contains(r#""id":"a""#), "{text}");
        let author = bench.access.authors().pop().unwrap();
        assert_eq!(*author.actor, Actor::new(ActorKind::Hook, "invoice.postCreate/mail"));
        let cause = author.cause.unwrap();
        assert_eq!((cause.position, cause.depth), (7, 3));
        assert_eq!(author.request_id.as_deref(), Some("r-1"));
        session.write_update("audit-1", "a", r#"{"n":2}"#, None).await.unwrap();
        session.write_delete("audit-1", "a", None).await.unwrap();

        for error in [
            session.write_create("invoice", None, "{}").await.unwrap_err(),
            session.write_update("invoice", "a", "{}", None).await.unwrap_err(),
            session.write_delete("invoice", "a", None).await.unwrap_err(),
        ] {
            assert_eq!(access_error(error).code, AccessCode::Denied);
        }
        assert_eq!(bench.access.authors().len(), 3);
    }

    #[tokio::test]
    async fn a_write_grant_is_no_read_grant() {
        let bench = Bench::new().with_instance("audit", "old", r#"{"secret":1}"#);
        let blind = bench.session("invoice", Phase::PostCreate, "mail", "write = ['audit']");
        let text = blind.write_create("audit", Some("b"), r#"{"n":1}"#).await.unwrap();
        assert!(text.contains(r#""data":{"n":1}"#), "{text}");
        let text = blind.write_delete("audit", "old", None).await.unwrap();
        assert!(text.contains(r#""data":null"#) && !text.contains("secret"), "{text}");
        let error = access_error(blind.write_update("audit", "none", "{}", None).await.unwrap_err());
        assert_eq!(error.code, AccessCode::NotFound);
        assert!(error.message.contains("a read grant for it shows more"), "{}", error.message);

        let bench = Bench::new().with_instance("audit", "old", r#"{"secret":1}"#);
        let reader = bench.session("invoice", Phase::PostCreate, "mail", "write = ['audit']\nread = ['audit']");
        let text = reader.write_delete("audit", "old", None).await.unwrap();
        assert!(text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn never_in_a_pre_phase() {
        let bench = Bench::new();
        let session = bench.session("invoice", Phase::PreUpdate, "mail", "write = ['*']");
        let error = access_error(session.write_create("audit", None, "{}").await.unwrap_err());
        assert_eq!(error.code, AccessCode::Denied);
        assert!(error.message.contains("no grant can open `write` to phase preUpdate"), "{}", error.message);
        assert!(!error.message.contains("[[grants]]"), "{}", error.message);
    }

    #[tokio::test]
    async fn a_grant_for_another_phase_is_named() {
        let bench = Bench::new();
        let session = bench.session_of(
            "[[grants]]\nmodel = 'invoice'\nphase = 'postUpdate'\nhook = '*'\nwrite = ['audit']",
            "invoice",
            Phase::PostCreate,
            "mail",
        );
        let message = access_error(session.write_create("audit", None, "{}").await.unwrap_err()).message;
        assert!(message.contains("(the one at config.toml:1 is for postUpdate only)"), "{message}");
        let session = bench.session_after(&message, "invoice", Phase::PostCreate, "mail");
        session.write_create("audit", None, "{}").await.unwrap();
    }

    #[tokio::test]
    async fn errors_of_the_server_reach_the_guest() {
        let bench = Bench::new();
        let session = bench.session("invoice", Phase::PostCreate, "mail", "write = ['*']");
        let error = session.write_update("audit", "none", "{}", None).await.unwrap_err();
        assert_eq!(access_error(error).code, AccessCode::NotFound);
        let large = format!("\"{}\"", "x".repeat(9 << 20));
        assert_eq!(
            access_error(session.write_create("audit", None, &large).await.unwrap_err()).code,
            AccessCode::TooLarge
        );
    }
}

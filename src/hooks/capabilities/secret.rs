//! `secret`: values of granted names.

use snaphook_identity::glob::any_matches;
use std::time::Duration;

use super::super::access::{AccessCode, AccessError};
use super::super::grants::{Capability, toml_string};
use super::super::session::{HostError, Session};
use super::check_name;

const SECRET_DEADLINE: Duration = Duration::from_secs(10);

impl Session {
    /// The value as text. A secret is never noted or logged, only its name; and where the guest writes it, it is masked.
    pub async fn secret_get(&self, name: &str) -> Result<String, HostError> {
        self.count_call()?;
        check_name("the name of a secret", name)?;
        let verdict = match any_matches(&self.granted.secret, name) {
            true => Ok(()),
            false => {
                let value = format!("[{}]", toml_string(name));
                Err(self.granted.denial(Capability::Secret, &format!("secret `{name}`"), &value, |grant| {
                    any_matches(&grant.secret, name)
                }))
            }
        };
        self.check(Capability::Secret, name, verdict)?;
        let what = format!("secret `{name}`");
        let value = self.within(SECRET_DEADLINE, &what, self.services.access.secret(name)).await?;
        let value = value.ok_or_else(|| {
            AccessError::new(
                AccessCode::NotFound,
                format!("there is no secret `{name}`; `snaphook secret set {name}` stores it"),
            )
        })?;
        let value = String::from_utf8(value)
            .map_err(|_| AccessError::new(AccessCode::Failed, format!("secret `{name}` is not text")))?;
        self.services.masks.give(name, &value);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::access::AccessCode;
    use super::super::super::context::{Failure, FailureCause, LogLevel};
    use super::super::super::session::{HttpRequest, Redirect};
    use super::super::super::testing::{Bench, access_error};
    use crate::config::Phase;

    #[tokio::test]
    async fn granted_names_only() {
        let bench = Bench::new().with_secret("mail-key", b"s3cret").with_secret("mail-raw", &[0xff]);
        let session = bench.session("invoice", Phase::PreCreate, "check", "secret = ['mail-*']");
        assert_eq!(session.secret_get("mail-key").await.unwrap(), "s3cret");
        assert_eq!(access_error(session.secret_get("mail-none").await.unwrap_err()).code, AccessCode::NotFound);
        assert_eq!(access_error(session.secret_get("mail-raw").await.unwrap_err()).code, AccessCode::Failed);

        let error = access_error(session.secret_get("pay'key").await.unwrap_err());
        assert_eq!(error.code, AccessCode::Denied);
        assert!(error.message.ends_with("secret = [\"pay'key\"]"), "{}", error.message);
        let (log, asked) = session.finish();
        assert_eq!(log.len(), 1, "the refusal is in the hook's log");
        assert!(asked.iter().any(|asked| asked.target == "pay'key" && !asked.granted));
        assert!(!format!("{log:?}{asked:?}").contains("s3cret"));
    }

    #[tokio::test]
    async fn what_the_guest_says_of_it_is_masked() {
        let bench = Bench::new()
            .with_names(&[])
            .with_secret("mail-key", b"s3cret-value")
            .with_secret("other", b"another-value");
        let lines = "secret = ['mail-*']\nhttp = ['http://nowhere.invalid/*']";
        let session = bench.session("invoice", Phase::PostCreate, "check", lines);
        session.log(LogLevel::Info, "before: s3cret-value".to_owned()).unwrap();
        session.secret_get("mail-key").await.unwrap();
        session.log(LogLevel::Info, "key=s3cret-value, bXI6czNjcmV0LXZhbHVl, another-value".to_owned()).unwrap();
        let url = "http://nowhere.invalid/s3cret-value/x";
        let request = HttpRequest {
            method: "GET".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
            redirect: Redirect::Follow,
        };
        let error = access_error(session.http_send(request).await.unwrap_err());
        let failure = Failure {
            cause: FailureCause::Exception,
            message: format!("{}: s3cret-value", error.message),
            limit: None,
        };
        let failure = session.masked_failure(failure);
        assert!(failure.message.contains("/***/x") && failure.message.ends_with(": ***"), "{}", failure.message);
        let (log, asked) = session.finish();
        let log: Vec<_> = log.into_iter().map(|line| line.message).collect();
        // What was written before anybody had it is no secret of the guest's.
        assert_eq!(log, ["before: s3cret-value", "key=***, bXI6***, another-value"]);
        assert!(asked.iter().any(|asked| asked.target == "GET http://nowhere.invalid/***/x"), "{asked:?}");
        // Another run of any hook that may have it may have it in memory.
        let session = bench.session("invoice", Phase::PostUpdate, "later", "secret = ['*']");
        session.log(LogLevel::Info, "s3cret-value".to_owned()).unwrap();
        assert_eq!(session.finish().0[0].message, "***");
    }

    #[tokio::test]
    async fn the_lines_of_the_message_open_it() {
        let bench = Bench::new().with_secret("mail-key", b"s3cret");
        let session = bench.session("invoice", Phase::PostDelete, "o'hook \"x\"\n", "");
        let message = access_error(session.secret_get("mail-key").await.unwrap_err()).message;
        let session = bench.session_after(&message, "invoice", Phase::PostDelete, "o'hook \"x\"\n");
        assert_eq!(session.secret_get("mail-key").await.unwrap(), "s3cret");
    }
}

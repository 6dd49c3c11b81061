//! One delivery attempt: builds, signs and sends the message, and interprets the receiver's response.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use snaphook_driver::time;

use super::signature::{Keys, Message};
use super::{PreparedWebhook, Undelivered, gone, lacks, timeout};
use crate::config::format_duration;
use crate::hooks::access::{AccessCode, AccessError};
use crate::hooks::capabilities::http::Pace;
use crate::hooks::context::{Context, Failure, FailureCause, Retry};
use crate::hooks::engines::handback::look;
use crate::hooks::session::{HostError, HttpRequest, HttpResponse, Redirect, Session};
use crate::telemetry::line::one_line;

/// Longest delay that a receiver may request with `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// How much of a response's body is logged.
const EXCERPT_BYTES_MAX: usize = 200;

impl PreparedWebhook {
    /// Sends the event once. Returns how it was delivered.
    pub(super) async fn attempt(&self, context: &Context, session: &Session) -> Result<String, Undelivered> {
        if let Some(since) = self.gone_since() {
            return Err(gone(since));
        }
        let record = context.event.as_ref().and_then(|event| event.record.as_ref());
        let Some(record) = record else {
            let message = "there is no event of the log to send; a webhook cannot be tried without one".to_owned();
            return Err(Undelivered::of(FailureCause::Exception, message));
        };
        if let Some(refusal) = lacks(session.granted(), &self.webhook) {
            return Err(Undelivered::of(FailureCause::Exception, refusal));
        }
        let secret = session.secret_get(&self.webhook.secret).await?;
        let keys = Keys::parse(&secret).map_err(|fault| {
            let message = format!("secret `{}` is not a webhook key: {fault}", self.webhook.secret);
            Undelivered::of(FailureCause::Exception, message)
        })?;
        drop(secret);
        // The signature is only valid for some minutes from its timestamp, so it is created after the wait.
        let _turn = self.target.turn(session.share_key()).await;
        let event = Arc::clone(record);
        let bytes = event.data.as_ref().map_or(0, |data| data.len());
        let message = look(bytes, move || Message::new(&event, &keys, time::now())).await;
        let message = message.map_err(|failure| Undelivered { failure, retry: Retry::Usual })?;
        let message = message.map_err(|fault| Undelivered::of(FailureCause::Exception, fault))?;
        let timeout = timeout(session.granted().timeout);
        let pace = Pace { excerpt: Some(EXCERPT_BYTES_MAX), hides_path: true, ..Pace::default() };
        let started = Instant::now();
        let response = session.http_send_paced(request(&self.webhook.url, message, timeout), pace).await;
        let took = Duration::from_millis(started.elapsed().as_millis() as u64);
        let response = response.map_err(|error| unanswered(error, timeout))?;
        self.judge(&response, took)
    }

    fn judge(&self, response: &HttpResponse, took: Duration) -> Result<String, Undelivered> {
        let status = response.status;
        let answered = format!("POST {} returned {status} in {}", self.webhook.address(), format_duration(took));
        if (200..300).contains(&status) {
            return Ok(answered);
        }
        if status == 410 {
            self.set_gone(Some(time::now()));
            let message = format!(
                "{answered}: the receiver accepts no more events, so nothing is sent until the hook is bound again"
            );
            return Err(Undelivered { retry: Retry::Never, ..Undelivered::of(FailureCause::Exception, message) });
        }
        let header = |name: &str| response.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let asked = header("retry-after").and_then(|text| retry_after(text));
        let mut message = answered;
        if let Some(location) = header("location").filter(|_| (300..400).contains(&status)) {
            let location = excerpt(location.as_bytes());
            message.push_str(&format!(
                ", a redirect to `{location}`, which a webhook does not follow: bind it to the final URL"
            ));
        } else if !response.body.is_empty() {
            message.push_str(&format!(": {}", excerpt(&response.body)));
        }
        if let Some(delay) = asked {
            message.push_str(&format!("; again in {} at the earliest, as requested", format_duration(delay)));
        }
        let retry = Retry::Patient(asked.unwrap_or_default());
        Err(Undelivered { retry, ..Undelivered::of(FailureCause::Exception, message) })
    }
}

fn request(url: &str, message: Message, timeout: Duration) -> HttpRequest {
    let Message { body, id, timestamp, signature } = message;
    HttpRequest {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("webhook-id".to_owned(), id),
            ("webhook-timestamp".to_owned(), timestamp),
            ("webhook-signature".to_owned(), signature),
        ],
        body,
        timeout: Some(timeout),
        // A receiver must not be able to redirect a signed event elsewhere.
        redirect: Redirect::Manual,
    }
}

impl From<HostError> for Undelivered {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Access(AccessError { code: AccessCode::Timeout, message }) => {
                Undelivered::of(FailureCause::Timeout, message)
            }
            // A retry would send the same message, which is too large.
            HostError::Access(AccessError { code: AccessCode::TooLarge, message }) => {
                Undelivered { retry: Retry::Never, ..Undelivered::of(FailureCause::Output, message) }
            }
            HostError::Access(AccessError { message, .. }) => Undelivered::of(FailureCause::Exception, message),
            HostError::Fatal(failure) => Undelivered { failure, retry: Retry::Usual },
        }
    }
}

/// A request without a response. A receiver that cannot be reached or is too slow may be available later.
fn unanswered(error: HostError, timeout: Duration) -> Undelivered {
    let is_late = matches!(&error, HostError::Access(error) if error.code == AccessCode::Timeout);
    let is_away = matches!(&error, HostError::Access(error) if error.code == AccessCode::Failed);
    let Undelivered { failure, retry } = error.into();
    let limit = match is_late {
        true => Some(format!("timeout {}", format_duration(timeout))),
        false => failure.limit,
    };
    let retry = if is_late || is_away { Retry::Patient(Duration::ZERO) } else { retry };
    Undelivered { failure: Failure { limit, ..failure }, retry }
}

/// Parses seconds or a date; a longer delay is reduced to [`RETRY_AFTER_MAX`].
fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    let asked = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        // Too many seconds for the integer type.
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => RETRY_AFTER_MAX,
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(asked.min(RETRY_AFTER_MAX))
}

/// A receiver's bytes as text on one line.
fn excerpt(bytes: &[u8]) -> String {
    one_line(&String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT_BYTES_MAX)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_that_receivers_ask_for() {
        let date = |ahead: i64| {
            let time = SystemTime::now();
            let by = Duration::from_secs(ahead.unsigned_abs());
            httpdate::fmt_http_date(if ahead < 0 { time - by } else { time + by })
        };
        for (text, expected) in [
            ("0", Some(0..=0)),
            (" 7 ", Some(7..=7)),
            ("601", Some(600..=600)),
            ("18446744073709551616", Some(600..=600)),
            (&date(60), Some(58..=60)),
            (&date(-60), Some(0..=0)),
            (&date(3_000_000_000), Some(600..=600)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let found = retry_after(text).map(|delay| delay.as_secs());
            let fits = match (&found, &expected) {
                (Some(found), Some(expected)) => expected.contains(found),
                (None, None) => true,
                _ => false,
            };
            assert!(fits, "`{text}`: {found:?}");
        }
    }

    #[test]
    fn an_excerpt_is_short_and_on_one_line() {
        assert_eq!(excerpt(b"a\r\nb\x1b[0m\xff\0"), "a\\r\\nb\\u{1b}[0m\u{fffd}\\u{0}");
        assert!(excerpt(&[0; 10_000]).len() <= EXCERPT_BYTES_MAX * 6);
        assert_eq!(excerpt(&"ü".repeat(200).into_bytes()).chars().count(), 100);
    }
}

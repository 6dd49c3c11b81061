//! A response, and what it means for the request.

use std::time::Duration;

use crate::secrets::Secrets;

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub content_type: Option<String>,
    /// The target of a redirect, which is not followed.
    pub location: Option<String>,
    /// How long the peer asks the client to wait before it retries.
    pub retry_after: Option<Duration>,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// Whether `body` is the complete body.
    pub is_whole: bool,
    pub(crate) secrets: Secrets,
}

/// What a response means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request was carried out.
    Done,
    /// A retry may succeed, and this attempt may have succeeded.
    Passing,
    /// The address does not exist.
    Absent,
    /// The content of the request is rejected, and a retry would be rejected too.
    Refused,
    /// The address, the token or the peer is wrong: the response would be the same whatever was sent.
    Unusable,
}

impl Response {
    /// Statuses about the record (400, 409, 422) or about its address (404, 410) only count if they come from the API
    /// itself: gateways and firewalls return them too, for every record, and then with a web page. 413 is always about
    /// the record.
    pub fn verdict(&self) -> Verdict {
        match self.status {
            200..300 if self.is_page() => Verdict::Unusable,
            200..300 => Verdict::Done,
            408 | 425 | 429 | 500.. => Verdict::Passing,
            404 | 410 if self.is_of_api() => Verdict::Absent,
            413 => Verdict::Refused,
            400 | 409 | 422 if self.is_of_api() => Verdict::Refused,
            _ => Verdict::Unusable,
        }
    }

    /// The message about an unexpected response, such as `the peer answered 400: {"error": …}`.
    pub fn complaint(&self) -> String {
        let status = self.status;
        if let (300..400, Some(location)) = (status, &self.location) {
            let location = self.secrets.quote(location, false);
            return format!(
                "the peer answered {status} and redirects to {location}, which is not followed; `url` must be the final address"
            );
        }
        let text = self.quoted(&String::from_utf8_lossy(&self.body));
        if text.is_empty() {
            return format!("the peer answered {status}");
        }
        if self.is_of_api() {
            return format!("the peer answered {status}: {text}");
        }
        let form =
            self.content_type.as_deref().map_or("a web page".to_owned(), |form| format!("`{}`", self.quoted(form)));
        format!(
            "the peer answered {status} with {form} instead of JSON; was it a gateway, or is `url` not the address of the API? {text}"
        )
    }

    /// The beginning of a text of this response, for a message: without echoed secrets and without control characters.
    pub fn quoted(&self, text: &str) -> String {
        self.secrets.quote(text, !self.is_whole)
    }

    /// Whether the response is a web page: from a gateway, a login page, or a server that is not the API.
    fn is_page(&self) -> bool {
        self.begins_with(b"<")
            && matches!(self.media_type().as_deref(), None | Some("text/html" | "application/xhtml+xml"))
    }

    /// Whether the body looks like an error of an API: JSON, plain text, or empty.
    fn is_of_api(&self) -> bool {
        let is_json = |media_type: &str| media_type.ends_with("/json") || media_type.ends_with("+json");
        match self.media_type().as_deref() {
            _ if self.body.trim_ascii().is_empty() || self.begins_with(b"{") => true,
            None | Some("text/plain") => !self.begins_with(b"<"),
            Some(media_type) => is_json(media_type),
        }
    }

    fn begins_with(&self, start: &[u8]) -> bool {
        self.body.trim_ascii_start().starts_with(start)
    }

    /// The content type without its parameters.
    fn media_type(&self) -> Option<String> {
        let text = self.content_type.as_deref()?.split(';').next()?.trim();
        (!text.is_empty()).then(|| text.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, content_type: &str, body: &str) -> Response {
        Response {
            status,
            content_type: Some(content_type.to_owned()).filter(|text| !text.is_empty()),
            location: None,
            retry_after: None,
            body: body.into(),
            is_whole: true,
            secrets: Secrets::default(),
        }
    }

    #[test]
    fn what_a_response_says() {
        use Verdict::{Absent, Done, Passing, Refused, Unusable};
        for (status, content_type, body, verdict) in [
            (200, "", "", Done),
            (201, "application/json", "{}", Done),
            (204, "", "", Done),
            (200, "text/html", "ok", Done),
            (200, "application/xml", "<ok/>", Done),
            (200, "text/html; charset=utf-8", "\n<!doctype html>", Unusable),
            (200, "", "<html>", Unusable),
            (304, "", "", Unusable),
            (400, "", "", Refused),
            (400, "application/problem+json; charset=utf-8", "{}", Refused),
            (422, "Application/JSON", "[]", Refused),
            (409, "text/plain; charset=utf-8", "no", Refused),
            (413, "", "too large", Refused),
            (413, "text/html", "", Refused),
            (400, "text/html", "{\"error\":1}", Refused),
            (414, "", "", Unusable),
            (400, "text/html", "<html>", Unusable),
            (413, "text/html; charset=utf-8", "too large", Refused),
            (413, "", " <html>", Refused),
            (400, "text/plain", "<html>", Unusable),
            (422, "application/xml", "<Error/>", Unusable),
            (404, "application/json", "{}", Absent),
            (410, "", "", Absent),
            (404, "text/html", "<h1>Not Found</h1>", Unusable),
            (401, "application/json", "{}", Unusable),
            (403, "application/json", "{}", Unusable),
            (405, "", "", Unusable),
            (408, "", "", Passing),
            (425, "", "", Passing),
            (429, "text/html", "<html>", Passing),
            (500, "application/json", "{}", Passing),
            (503, "text/html", "<html>", Passing),
        ] {
            assert_eq!(response(status, content_type, body).verdict(), verdict, "{status} {content_type} {body}");
        }
    }

    #[test]
    fn complaints_say_who_may_have_answered() {
        let page = response(413, "text/html", "<html>no").complaint();
        assert!(page.starts_with("the peer answered 413 with `text/html` instead of JSON"), "{page}");
        assert!(page.ends_with("? <html>no"), "{page}");
        assert_eq!(response(400, "", " no\n").complaint(), "the peer answered 400: no");
        assert_eq!(response(400, "text/html", "").complaint(), "the peer answered 400");
    }
}

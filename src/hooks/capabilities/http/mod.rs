//! `http`: requests of post hooks to granted URLs.
//!
//! Each hop of a request, including redirects, is checked in the same way: first the URL against the grants, then the
//! address. An address that is not public (loopback, private, link-local, metadata …) is only reached if the grant
//! names the host or address in full. A grant with `*` in the host never allows such an address, whatever name resolves
//! to it.

mod address;
pub(in crate::hooks) mod client;
mod connection;
mod secrets;
pub(in crate::hooks) mod url_pattern;

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::super::access::{AccessCode, AccessError};
use super::super::grants::{Capability, Granted, toml_string};
use super::super::host_memory::Held;
use super::super::session::{HostError, HttpRequest, HttpResponse, Redirect, Session};
use crate::config::format_size;
use crate::telemetry::trace::{Span, SpanKind};
pub(in crate::hooks) use client::Pace;
use client::{CompleteResponse, Refused, Terms};
pub use client::{HttpClient, Lookup};
pub(in crate::hooks) use connection::Connection;
use url_pattern::{TargetUrl, UrlPattern};

/// From the first byte sent to the last byte received, including redirects; a request may set another timeout.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
pub(in crate::hooks) const TIMEOUT_MAX: Duration = Duration::from_secs(120);

const REDIRECTS_MAX: usize = 10;
pub(in crate::hooks) const HEADERS_BYTES_MAX: usize = 64 * 1024;
pub(in crate::hooks) const BODY_BYTES_MAX: usize = client::BODY_BYTES_MAX;

/// Headers that determine where a message goes or where it ends: only the client sets them.
const HEADERS_OF_THE_CLIENT: [&str; 9] =
    ["connection", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection"];

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

impl Session {
    /// Sends a request and reads the complete response.
    pub async fn http_send(&self, request: HttpRequest) -> Result<HttpResponse, HostError> {
        self.http_send_paced(request, Pace::default()).await
    }

    /// The same, with timeouts for the parts of each hop.
    pub(in crate::hooks) async fn http_send_paced(
        &self,
        request: HttpRequest,
        pace: Pace,
    ) -> Result<HttpResponse, HostError> {
        self.count_call()?;
        let method = url_pattern::parse_method(&request.method).map_err(invalid)?;
        let target = TargetUrl::parse(&request.url).map_err(invalid)?;
        if request.body.len() > BODY_BYTES_MAX {
            return Err(super::read::too_large("the body", request.body.len(), BODY_BYTES_MAX).into());
        }
        let named = self.check_http(&method, &target, None)?;
        let mut held = self.hold(request.body.len())?;
        let mut headers = self.headers(&request.headers).await?;
        let shown = self.masked(&pace.shown(&target)).into_owned();
        let mut span = self.begin_request_span(&method, &shown, &mut headers.headers);
        let timeout = request.timeout.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX);
        let what = format!("{method} {shown}");
        let mut hop = Hop { method, target, headers, body: request.body.into(), named, pace, count: 0 };
        // Fatal errors of a hop are kept separately: `within` handles errors for the guest.
        let call = async {
            let _slot = self.outside_slot().await;
            loop {
                match self.hop(hop, request.redirect, &mut held).await {
                    Ok(HopOutcome::Done(response)) => return Ok(Ok(response)),
                    Ok(HopOutcome::Next(next)) => hop = next,
                    Err(HostError::Access(error)) => return Err(error),
                    Err(fatal) => return Ok(Err(fatal)),
                }
            }
        };
        let answer = self.within(timeout, &what, call).await.flatten();
        match &answer {
            Ok(response) => span.note("http.response.status_code", || u64::from(response.status)),
            Err(HostError::Access(error)) => span.fail(|| self.masked(&error.message).into_owned()),
            Err(HostError::Fatal(failure)) => span.fail(|| self.masked(&failure.message).into_owned()),
        }
        answer
    }

    /// The span of an outgoing request; its trace headers are added unless the hook sets them.
    fn begin_request_span(&self, method: &Method, shown: &str, headers: &mut HeaderMap) -> Span {
        let Some(scope) = &self.scope else { return Span::default() };
        let mut span = Span::of(scope, "http", SpanKind::Client);
        span.name(|| method.to_string());
        span.note("http.request.method", || method.to_string());
        // Without its query, which may be confidential.
        span.note("url.full", || shown.to_owned());
        let context = span.context().or_else(|| scope.trace());
        if let Some(context) = context.filter(|_| !headers.contains_key(TRACEPARENT)) {
            // Only hexadecimal digits and dashes; the other header was validated when it was received.
            headers.extend(HeaderValue::try_from(context.traceparent()).ok().map(|value| (TRACEPARENT, value)));
            let state = context.state.as_deref().and_then(|state| HeaderValue::from_str(state).ok());
            headers.remove(TRACESTATE);
            headers.extend(state.map(|value| (TRACESTATE, value)));
        }
        span
    }

    /// One request of a chain of redirects.
    async fn hop(&self, hop: Hop, redirect: Redirect, held: &mut Held<'_>) -> Result<HopOutcome, HostError> {
        let Hop { method, target, headers, body, named, pace, count } = hop;
        let terms = Terms { key: self.share_key(), named, pace: pace.clone() };
        let (url, sent) = (target.url().clone(), headers.headers.clone());
        let answer =
            self.services.http.send(terms, method.clone(), url, sent, body.clone(), held).await.map_err(|error| {
                match error {
                    HostError::Access(error) if error.code == AccessCode::Denied => {
                        self.refuse_address(&method, &target, &error.message).into()
                    }
                    HostError::Access(AccessError { code, message }) => {
                        AccessError::new(code, format!("{method} {}: {message}", pace.shown(&target))).into()
                    }
                    fatal => fatal,
                }
            })?;
        let location = answer.headers.get(header::LOCATION).filter(|_| is_redirect(answer.status));
        let Some(location) = location.filter(|_| redirect != Redirect::Manual) else {
            return Ok(HopOutcome::Done(to_response(&target, count > 0, answer)));
        };
        if redirect == Redirect::Error {
            return Err(AccessError::new(AccessCode::Failed, format!("{method} {target} was redirected")).into());
        }
        if count >= REDIRECTS_MAX {
            return Err(AccessError::new(
                AccessCode::Failed,
                format!("{method} {target}: more than {REDIRECTS_MAX} redirects"),
            )
            .into());
        }
        let location = location.to_str().map_err(|_| invalid("a redirect to an invalid URL".to_owned()))?;
        let next = target.join(location).map_err(|error| invalid(format!("redirect from {target}: {error}")))?;
        let mut hop = Hop { method, target: next, headers, body, named: false, pace, count: count + 1 };
        hop.rewrite(answer.status, &target);
        hop.named = self.check_http(&hop.method, &hop.target, Some(&target))?;
        Ok(HopOutcome::Next(hop))
    }

    /// Checks that a grant allows the request; returns whether such a grant names the host in full.
    fn check_http(&self, method: &Method, target: &TargetUrl, from: Option<&TargetUrl>) -> Result<bool, HostError> {
        let note = format!("{method} {target}");
        let mut opened = false;
        let mut named = false;
        for pattern in self.granted.http.iter().filter(|pattern| pattern.opens(method, target)) {
            opened = true;
            named |= pattern.names_host();
        }
        let verdict = if !opened {
            let from = from.map(|from| format!(" (a redirect from `{from}`)")).unwrap_or_default();
            let method_word = if *method == Method::GET { String::new() } else { format!(" {method}") };
            let asked = format!("http{method_word} to `{target}`{from}");
            Err(self.granted.denial(Capability::Http, &asked, &grant_value(method, target), |grant| {
                let patterns = grant.http.iter().filter_map(|text| UrlPattern::parse(text).ok());
                patterns.into_iter().any(|pattern| pattern.opens(method, target))
            }))
        } else if let (false, Some(address)) = (named, target.literal())
            && let Some(kind) = address::special(address)
        {
            // A connector does not pass an IP address to the resolver, so it is checked here.
            let refused = Refused { host: target.host().to_owned(), address, kind };
            Err(self.address_error(method, target, &refused.to_string()))
        } else {
            Ok(())
        };
        self.check(Capability::Http, note, verdict)?;
        Ok(named)
    }

    /// The denial for a name that resolved to an address that is not public.
    fn refuse_address(&self, method: &Method, target: &TargetUrl, reason: &str) -> AccessError {
        let error = self.address_error(method, target, reason);
        match self.check(Capability::Http, format!("{method} {target}"), Err(error.clone())) {
            Err(HostError::Access(error)) => error,
            _ => error,
        }
    }

    fn address_error(&self, method: &Method, target: &TargetUrl, reason: &str) -> AccessError {
        let lines = self.granted.lines(Capability::Http, &grant_value(method, target));
        let grantee = self.grantee();
        AccessError::new(
            AccessCode::Denied,
            format!(
                "{grantee} asked for http to `{target}`, but {reason}, which only a grant that names the host without \
                 `*` opens{lines}"
            ),
        )
    }

    /// The headers to send, with secrets inserted.
    async fn headers(&self, headers: &[(String, String)]) -> Result<Headers, HostError> {
        let mut map = HeaderMap::new();
        let mut confidential = Vec::new();
        let mut bytes = 0;
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| invalid(format!("`{}` is not a valid header name", name.escape_debug())))?;
            if HEADERS_OF_THE_CLIENT.contains(&name.as_str()) {
                return Err(invalid(format!("header `{name}` is set by the server itself")).into());
            }
            if name == header::CONTENT_LENGTH {
                // The client computes the length; many libraries pass this header.
                continue;
            }
            let (value, secret) = self.with_secrets(value, HEADERS_BYTES_MAX - bytes).await?;
            bytes += name.as_str().len() + value.len();
            if bytes > HEADERS_BYTES_MAX {
                return Err(too_long());
            }
            let mut value = HeaderValue::from_bytes(value.trim().as_bytes())
                .map_err(|_| invalid(format!("the value of header `{name}` contains a line break or NUL")))?;
            if secret {
                value.set_sensitive(true);
                confidential.push(name.clone());
            }
            map.append(name, value);
        }
        Ok(Headers { headers: map, confidential })
    }
}

/// The value for `http` in a grant that would allow a POST to `url`; `None` if a grant already allows it, or if no
/// grant could allow this URL. The address of the host is only known when it is resolved.
pub(in crate::hooks) fn lacks_post(granted: &Granted, url: &str) -> Option<String> {
    let target = TargetUrl::parse(url).ok()?;
    let is_open = granted.http.iter().any(|pattern| pattern.opens(&Method::POST, &target));
    (!is_open).then(|| grant_value(&Method::POST, &target))
}

/// Checks that hooks could request a URL at all; the error says what is wrong with it.
pub(in crate::hooks) fn check_url(url: &str) -> Result<(), String> {
    TargetUrl::parse(url).map(drop)
}

/// One request of a chain of redirects.
struct Hop {
    method: Method,
    target: TargetUrl,
    headers: Headers,
    body: Bytes,
    /// Whether the grant names the host in full.
    named: bool,
    pace: Pace,
    /// Number of redirects before this one.
    count: usize,
}

#[expect(clippy::large_enum_variant, reason = "one is held for each request, on its stack")]
enum HopOutcome {
    Done(HttpResponse),
    Next(Hop),
}

struct Headers {
    headers: HeaderMap,
    /// Headers that contain a secret: they are only sent to the origin that the hook addressed.
    confidential: Vec<HeaderName>,
}

impl Hop {
    /// Applies the changes of the fetch standard to a request that is redirected from `from` with `status`.
    fn rewrite(&mut self, status: u16, from: &TargetUrl) {
        let to_get = match status {
            301 | 302 => self.method == Method::POST,
            303 => self.method != Method::GET && self.method != Method::HEAD,
            _ => false,
        };
        let map = &mut self.headers.headers;
        if to_get {
            self.method = Method::GET;
            self.body = Bytes::new();
            for name in
                [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE, header::CONTENT_LOCATION]
            {
                map.remove(name);
            }
        }
        if self.target.url().origin() != from.url().origin() {
            for name in [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE] {
                map.remove(name);
            }
            for name in self.headers.confidential.drain(..) {
                map.remove(name);
            }
        }
    }
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

fn to_response(target: &TargetUrl, redirected: bool, answer: CompleteResponse) -> HttpResponse {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    HttpResponse {
        status: answer.status,
        url: target.url().to_string(),
        redirected,
        headers: answer.headers.iter().map(text).collect(),
        body: answer.body,
    }
}

/// The TOML value that allows exactly this method and path.
fn grant_value(method: &Method, target: &TargetUrl) -> String {
    format!("[{}]", toml_string(&format!("{method} {target}")))
}

fn too_long() -> HostError {
    AccessError::new(AccessCode::TooLarge, format!("the headers exceed {}", format_size(HEADERS_BYTES_MAX))).into()
}

fn invalid(message: String) -> AccessError {
    AccessError::new(AccessCode::Invalid, message)
}

#[cfg(test)]
mod tests;

//! A client of a running server's REST API.

use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use reqwest::{ClientBuilder, Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::failure::{Failure, Result};
use crate::config::{Config, MountAddress};

/// What stands in a path segment or a query as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A server's address.
pub(super) struct Client {
    base: String,
    http: reqwest::Client,
    /// The user named the address, so it must be right.
    named: bool,
    /// Sent with every request.
    token: Option<String>,
}

/// A body and its media type.
pub(super) struct ClientBody {
    pub(super) media_type: &'static str,
    pub(super) bytes: Vec<u8>,
}

impl ClientBody {
    pub(super) fn json(value: &Value) -> Self {
        ClientBody { media_type: "application/json", bytes: value.to_string().into_bytes() }
    }
}

impl Client {
    pub(super) fn new(url: &str, named: bool) -> Result<Self> {
        Client::with(url, named, |builder| builder)
    }

    /// For the server of a configuration, at the address where it listens.
    pub(super) fn of(config: &Config, address: &MountAddress, named: bool) -> Result<Self> {
        let url = match address {
            MountAddress::Tcp(address) if !address.ip().is_unspecified() => config.url_at(&address.to_string()),
            _ => config.url(),
        };
        Client::with(&url, named, |builder| {
            let builder = match super::pinned::client_config(config) {
                Some(tls) => builder.tls_backend_preconfigured(tls),
                None => builder,
            };
            match address {
                #[cfg(unix)]
                MountAddress::Unix(path) => builder.unix_socket(path.clone()),
                _ => builder,
            }
        })
    }

    fn with(url: &str, named: bool, adapt: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Self> {
        let wrong = || Failure::new(format!("`--url` is `{url}`, expected such as `http://127.0.0.1:1337`"));
        let parsed = Url::parse(url).map_err(|_| wrong())?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
            return Err(wrong());
        }
        // Ours is the only choice of a TLS implementation in this process; if it was made already, so much the better.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let local = parsed.host_str().is_some_and(is_loopback);
        let builder = || {
            let builder = reqwest::Client::builder()
                .connect_timeout(Duration::from_secs(5))
                .user_agent(concat!("snaphook/", env!("CARGO_PKG_VERSION")));
            adapt(if local { builder.no_proxy() } else { builder })
        };
        // A machine without any certificate can still speak plain HTTP.
        let http = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        let http = http.map_err(|error| Failure::new(format!("the HTTP client cannot start: {error}")))?;
        Ok(Client { base: url.trim_end_matches('/').to_owned(), http, named, token: None })
    }

    /// The same, with a token.
    pub(super) fn with_token(self, token: Option<String>) -> Self {
        Client { token, ..self }
    }

    /// Whether the user named the server. Then nothing else will do.
    pub(super) fn is_named(&self) -> bool {
        self.named
    }

    /// Where the server is, as messages name it.
    pub(super) fn address(&self) -> &str {
        &self.base
    }

    /// A body that is not valid JSON, and its media type.
    pub(super) async fn get_bytes(&self, path: &str) -> Result<(String, Vec<u8>)> {
        let response = self.send(self.request(Method::GET, path)).await?;
        let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default().to_owned();
        let broken = |error: reqwest::Error| Failure::new(format!("the response broke off: {}", causes(&error)));
        Ok((media_type, response.bytes().await.map_err(broken)?.to_vec()))
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        json(self.send(self.request(Method::GET, path)).await?).await
    }

    /// Every model, as the server tells of it.
    pub(super) async fn models(&self) -> Result<Vec<Value>> {
        match self.get("/models").await?.get_mut("items").map(Value::take) {
            Some(Value::Array(models)) => Ok(models),
            _ => Err(Failure::new(format!("{} returned no list of models", self.base))),
        }
    }

    /// `None` for 404.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Value>> {
        let response = self.reach(self.request(Method::GET, path)).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            _ => Ok(Some(json(check(response).await?).await?)),
        }
    }

    pub(super) async fn post(&self, path: &str, body: Option<ClientBody>) -> Result<Value> {
        json(self.send(with_body(self.request(Method::POST, path), body)).await?).await
    }

    pub(super) async fn put(&self, path: &str, body: ClientBody) -> Result<Value> {
        json(self.send(with_body(self.request(Method::PUT, path), Some(body))).await?).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, path)).await.map(drop)
    }

    /// The entity tag of what is there.
    pub(super) async fn tag(&self, path: &str) -> Result<String> {
        let response = self.send(self.request(Method::GET, path)).await?;
        let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        tag.ok_or_else(|| Failure::new(format!("{} returned no entity tag at `{path}`", self.base)))
    }

    /// [`Client::put`], if what the tag belongs to is still as it was. Returns whether it was.
    pub(super) async fn put_if(&self, path: &str, body: ClientBody, tag: &str) -> Result<bool> {
        self.change_if(with_body(self.request(Method::PUT, path), Some(body)), tag).await
    }

    /// [`Client::delete`], if what the tag belongs to is still as it was. Returns whether it was.
    pub(super) async fn delete_if(&self, path: &str, tag: &str) -> Result<bool> {
        self.change_if(self.request(Method::DELETE, path), tag).await
    }

    async fn change_if(&self, request: RequestBuilder, tag: &str) -> Result<bool> {
        let response = self.reach(request.header(IF_MATCH, tag)).await?;
        match response.status() {
            StatusCode::PRECONDITION_FAILED => Ok(false),
            _ => check(response).await.map(|_| true),
        }
    }

    /// An answer that is read piece by piece.
    pub(super) async fn post_for_stream(&self, path: &str) -> Result<Response> {
        self.send(self.request(Method::POST, path)).await
    }

    /// A stream of server-sent events, from after an event on if one is named.
    pub(super) async fn stream(&self, path: &str, last_event_id: Option<&str>) -> Result<Response> {
        let request = self.request(Method::GET, path).header("accept", "text/event-stream");
        self.send(match last_event_id {
            Some(id) => request.header("last-event-id", id),
            None => request,
        })
        .await
    }

    /// Every item of a list, page by page. `on` gets one after the other.
    pub(super) async fn each(
        &self,
        path: &str,
        query: &[(&str, String)],
        cursor: impl Fn(&Value, &Value) -> Option<(&'static str, String)>,
        mut on: impl FnMut(Value) -> Result<()>,
    ) -> Result<()> {
        let mut next: Option<(&'static str, String)> = None;
        loop {
            let mut query = query.to_vec();
            if let Some((key, value)) = &next {
                query.retain(|(name, _)| name != key);
                query.push((key, value.clone()));
            }
            let mut page = self.get(&with_query(path, &query)).await?;
            let items = match page.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => items,
                _ => return Err(Failure::new(format!("{} returned no list at `{path}`", self.base))),
            };
            next = items.last().and_then(|last| cursor(&page, last));
            items.into_iter().try_for_each(&mut on)?;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        check(self.reach(request).await?).await
    }

    async fn reach(&self, request: RequestBuilder) -> Result<Response> {
        request.send().await.map_err(|error| match error.is_connect() {
            true => Failure::NoServer(format!(
                "no server responds at {}; start one with `snaphook serve`, or name another with `--url`",
                self.base
            )),
            false => Failure::Broken(format!("{} does not respond: {}", self.base, causes(&error))),
        })
    }
}

/// A path of segments, each encoded.
pub(super) fn path(segments: &[&str]) -> String {
    segments.iter().map(|segment| format!("/{}", utf8_percent_encode(segment, PLAIN))).collect()
}

/// A path with a query.
pub(super) fn with_query(path: &str, query: &[(&str, String)]) -> String {
    let pairs: Vec<_> = query
        .iter()
        .map(|(key, value)| format!("{}={}", utf8_percent_encode(key, PLAIN), utf8_percent_encode(value, PLAIN)))
        .collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

fn with_body(request: RequestBuilder, body: Option<ClientBody>) -> RequestBuilder {
    match body {
        Some(body) => request.header(CONTENT_TYPE, body.media_type).body(body.bytes),
        None => request,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The body; `null` if there is none.
async fn json(response: Response) -> Result<Value> {
    let bytes =
        response.bytes().await.map_err(|error| Failure::new(format!("the response broke off: {}", causes(&error))))?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    snaphook_driver::json::parse_bytes(&bytes)
        .map_err(|error| Failure::new(format!("the server's response is not valid JSON: {error}")))
}

/// An error answer becomes a failure with everything that its problem document says.
async fn check(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem = json(response).await.unwrap_or(Value::Null);
    let text = problem_text(status, &problem);
    Err(match status {
        StatusCode::NOT_FOUND => Failure::NotFound(text),
        StatusCode::GONE => Failure::PositionUnknown(text),
        _ => Failure::Message(text),
    })
}

fn problem_text(status: StatusCode, problem: &Value) -> String {
    let text = |name: &str| problem.get(name).and_then(Value::as_str);
    let mut message = match (text("detail").or_else(|| text("title")), text("hook")) {
        (Some(detail), Some(hook)) => format!("{detail} (hook `{hook}`)"),
        (Some(detail), None) => detail.to_owned(),
        (None, _) => format!("the server returned {status}"),
    };
    for error in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let line = format!("\n  {}: {}", part("pointer"), part("message"));
        // A refusal with one row often says it in its detail already.
        if !message.contains(part("message")) {
            message.push_str(&line);
        }
    }
    message
}

/// An error with its causes: reqwest keeps what matters in them.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        assert_eq!(path(&["models", "movie", "hooks"]), "/models/movie/hooks");
        assert_eq!(path(&["secrets", "a/b c"]), "/secrets/a%2Fb%20c");
        assert_eq!(with_query("/events", &[]), "/events");
        assert_eq!(
            with_query("/events", &[("model", "a&b".to_owned()), ("after", "7".to_owned())]),
            "/events?model=a%26b&after=7"
        );
    }

    #[test]
    fn addresses() {
        for (url, good) in [
            ("http://127.0.0.1:1337/api/", true),
            ("https://example.com", true),
            ("127.0.0.1:1337", false),
            ("ftp://example.com", false),
            ("", false),
        ] {
            assert_eq!(Client::new(url, true).is_ok(), good, "{url}");
        }
        for (host, local) in
            [("localhost", true), ("127.3.4.5", true), ("[::1]", true), ("10.0.0.1", false), ("example.com", false)]
        {
            assert_eq!(is_loopback(host), local, "{host}");
        }
    }

    #[test]
    fn problems() {
        let problem = json!({"title": "Invalid data", "detail": "2 errors", "errors": [{"pointer": "/data/a", "message": "too long"}]});
        assert_eq!(problem_text(StatusCode::UNPROCESSABLE_ENTITY, &problem), "2 errors\n  /data/a: too long");
        let problem = json!({"detail": "no", "hook": "check"});
        assert_eq!(problem_text(StatusCode::UNPROCESSABLE_ENTITY, &problem), "no (hook `check`)");
        assert_eq!(problem_text(StatusCode::BAD_GATEWAY, &Value::Null), "the server returned 502 Bad Gateway");
    }

    #[tokio::test]
    async fn nobody_there() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Client::new(&url, false).unwrap().get("/models").await.unwrap_err();
        assert!(matches!(error, Failure::NoServer(_)), "{error}");
        assert_eq!(
            error.to_string(),
            format!("no server responds at {url}; start one with `snaphook serve`, or name another with `--url`")
        );
    }
}

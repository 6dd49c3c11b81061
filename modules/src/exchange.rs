//! One request and its response, as the hooks of modules read and change them. Changes that a module may not make are
//! rejected here, for every kind of module.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use axum::http::request::Parts;
use axum::http::uri::{PathAndQuery, Uri};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use bytes::Bytes;

use crate::resume::WaitingHook;

/// Maximum number of header lines of a request or a response after changes by modules.
const HEADERS_MAX: usize = 256;

/// Longest name or value of a header, and longest URI, that a module may set.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Where a request came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Address and port; `unix` for a Unix socket.
    pub peer: Arc<str>,
    pub is_secure: bool,
}

/// A body: not read yet, or complete.
pub(crate) enum Content {
    Stream(Body),
    Whole(Bytes),
}

/// Whether something is about the request or the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// The memory of an exchange.
pub trait Hold: Send {
    /// Reserves more bytes. `false` if there is not enough memory.
    fn hold(&self, bytes: usize) -> bool;

    /// A body that holds its memory until it is sent.
    fn send(self: Box<Self>, body: Bytes) -> Body;
}

/// The error for a change that is not allowed or not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Impossible;

/// The response's head.
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The reason phrase in HTTP/1; `None`: the standard one.
    pub reason: Option<Bytes>,
}

/// A request and its response, while hooks of modules run.
pub struct Exchange {
    pub(crate) request: Parts,
    pub(crate) request_body: Content,
    pub(crate) response: Option<ResponseHead>,
    pub(crate) response_body: Content,
    pub(crate) origin: Origin,
    host: Bytes,
    /// The method as text, whose memory stays valid when the method is replaced: [`Method`] stores short unknown names
    /// inline.
    pub(crate) method_text: Bytes,
    pub(crate) memory: Box<dyn Hold>,
    body_bytes_max: usize,
    /// The side that the current hook may change.
    pub(crate) open: Option<Side>,
    /// Whether the hook may request the chunks of a body.
    pub(crate) may_filter: bool,
    /// Whether the hook requested them.
    pub(crate) wants_pieces: bool,
    /// Set when the hook requests a token in order to return `PENDING`.
    pub(crate) waiting: Option<WaitingHook>,
    /// A violation of the rules by the module.
    pub(crate) lie: Option<String>,
    /// Values that were replaced during a hook, because the module may still read them.
    kept: Vec<ViewedValue>,
}

/// A replaced value that a module may have a view of.
#[expect(dead_code, reason = "it is only kept")]
enum ViewedValue {
    Value(HeaderValue),
    Name(HeaderName),
    Uri(Uri),
    Bytes(Bytes),
}

impl Exchange {
    pub fn new(
        request: Parts,
        body: Body,
        origin: Origin,
        memory: Box<dyn Hold>,
        body_bytes_max: usize,
    ) -> Box<Exchange> {
        let host = match request.uri.authority() {
            Some(authority) => Bytes::copy_from_slice(authority.as_str().as_bytes()),
            None => request
                .headers
                .get(axum::http::header::HOST)
                .map_or_else(Bytes::new, |host| Bytes::copy_from_slice(host.as_bytes())),
        };
        Box::new(Exchange {
            method_text: text_of(&request.method),
            request,
            request_body: Content::Stream(body),
            response: None,
            response_body: Content::Whole(Bytes::new()),
            origin,
            host,
            memory,
            body_bytes_max,
            open: None,
            may_filter: false,
            wants_pieces: false,
            waiting: None,
            lie: None,
            kept: Vec::new(),
        })
    }

    pub fn request(&self) -> &Parts {
        &self.request
    }

    pub fn response(&self) -> Option<&ResponseHead> {
        self.response.as_ref()
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The requested host, with the port if the request names one.
    pub fn host(&self) -> &[u8] {
        &self.host
    }

    /// Path and query.
    pub fn uri(&self) -> &str {
        self.request.uri.path_and_query().map_or("/", PathAndQuery::as_str)
    }

    pub fn protocol(&self) -> &'static str {
        match self.request.version {
            Version::HTTP_09 => "HTTP/0.9",
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        }
    }

    pub fn headers(&self, side: Side) -> Option<&HeaderMap> {
        match side {
            Side::Request => Some(&self.request.headers),
            Side::Response => self.response.as_ref().map(|head| &head.headers),
        }
    }

    /// The body, if it is complete in memory.
    pub fn body(&self, side: Side) -> Option<&Bytes> {
        let content = match side {
            Side::Request => &self.request_body,
            Side::Response if self.response.is_some() => &self.response_body,
            Side::Response => return None,
        };
        match content {
            Content::Whole(bytes) => Some(bytes),
            Content::Stream(_) => None,
        }
    }

    /// Reserves memory, until the exchange ends, for bytes that will be copied out of it. `false` if there is not
    /// enough.
    pub fn hold(&self, bytes: usize) -> bool {
        self.memory.hold(bytes)
    }

    pub fn set_method(&mut self, method: &[u8]) -> Result<(), Impossible> {
        self.check_open(Side::Request)?;
        let method = Method::from_bytes(method).map_err(|_| Impossible)?;
        if method == Method::CONNECT || method.as_str().len() > 64 {
            return Err(Impossible);
        }
        self.kept.push(ViewedValue::Bytes(std::mem::replace(&mut self.method_text, text_of(&method))));
        self.request.method = method;
        Ok(())
    }

    /// Sets path and query.
    pub fn set_uri(&mut self, uri: &[u8]) -> Result<(), Impossible> {
        self.check_open(Side::Request)?;
        if uri.len() > TEXT_BYTES_MAX || uri.first() != Some(&b'/') {
            return Err(Impossible);
        }
        let path = PathAndQuery::try_from(uri).map_err(|_| Impossible)?;
        let mut parts = self.request.uri.clone().into_parts();
        parts.path_and_query = Some(path);
        let uri = Uri::from_parts(parts).map_err(|_| Impossible)?;
        self.kept.push(ViewedValue::Uri(std::mem::replace(&mut self.request.uri, uri)));
        Ok(())
    }

    pub fn set_status(&mut self, status: u32) -> Result<(), Impossible> {
        self.check_open(Side::Response)?;
        let status = u16::try_from(status).ok().filter(|status| (200..=599).contains(status)).ok_or(Impossible)?;
        let status = StatusCode::from_u16(status).map_err(|_| Impossible)?;
        let head = self.response.as_mut().ok_or(Impossible)?;
        head.status = status;
        Ok(())
    }

    pub fn set_reason(&mut self, reason: &[u8]) -> Result<(), Impossible> {
        self.check_open(Side::Response)?;
        let is_text = reason.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f));
        if !is_text || reason.len() > 512 {
            return Err(Impossible);
        }
        let reason = Bytes::copy_from_slice(reason);
        let head = self.response.as_mut().ok_or(Impossible)?;
        if let Some(old) = head.reason.replace(reason) {
            self.kept.push(ViewedValue::Bytes(old));
        }
        Ok(())
    }

    /// Replaces all values of a header.
    pub fn set_header(&mut self, side: Side, name: &[u8], value: &[u8]) -> Result<(), Impossible> {
        let (name, value) = line(name, value)?;
        self.check_open(side)?;
        self.remove(side, &name)?;
        self.add(side, name, value)
    }

    /// Adds a value to those of a header.
    pub fn add_header(&mut self, side: Side, name: &[u8], value: &[u8]) -> Result<(), Impossible> {
        let (name, value) = line(name, value)?;
        self.check_open(side)?;
        self.add(side, name, value)
    }

    pub fn remove_header(&mut self, side: Side, name: &[u8]) -> Result<(), Impossible> {
        let name = header_name(name)?;
        self.check_open(side)?;
        self.remove(side, &name)
    }

    /// Replaces a body.
    pub fn set_body(&mut self, side: Side, body: &[u8]) -> Result<(), Impossible> {
        self.check_open(side)?;
        if body.len() > self.body_bytes_max || !self.memory.hold(body.len()) {
            return Err(Impossible);
        }
        self.replace_body(side, Bytes::copy_from_slice(body));
        Ok(())
    }

    /// Sets a body that the server created or read. The caller has reserved its memory.
    pub(crate) fn replace_body(&mut self, side: Side, body: Bytes) {
        let headers = match side {
            Side::Request => &mut self.request.headers,
            Side::Response => match &mut self.response {
                Some(head) => &mut head.headers,
                None => return,
            },
        };
        self.kept.extend(headers.remove(CONTENT_LENGTH).map(ViewedValue::Value));
        self.kept.extend(headers.remove(TRANSFER_ENCODING).map(ViewedValue::Value));
        if side == Side::Request {
            headers.insert(CONTENT_LENGTH, body.len().into());
        }
        let content = match side {
            Side::Request => &mut self.request_body,
            Side::Response => &mut self.response_body,
        };
        if let Content::Whole(old) = std::mem::replace(content, Content::Whole(body)) {
            self.kept.push(ViewedValue::Bytes(old));
        }
    }

    /// Passes the chunks of this body to the module from now on.
    pub fn filter_body(&mut self, side: Side) -> Result<(), Impossible> {
        self.check_open(side)?;
        if !self.may_filter {
            return Err(Impossible);
        }
        self.wants_pieces = true;
        Ok(())
    }

    /// Creates an empty response for a hook to fill in.
    pub(crate) fn begin_response(&mut self) {
        let head = ResponseHead { status: StatusCode::OK, headers: HeaderMap::new(), reason: None };
        self.response.get_or_insert(head);
    }

    /// Called when the hook has returned: drops replaced values, which are no longer in use.
    pub(crate) fn hook_ended(&mut self) {
        self.kept.clear();
        self.open = None;
    }

    fn check_open(&self, side: Side) -> Result<(), Impossible> {
        if self.open == Some(side) { Ok(()) } else { Err(Impossible) }
    }

    fn headers_mut(&mut self, side: Side) -> Result<&mut HeaderMap, Impossible> {
        match side {
            Side::Request => Ok(&mut self.request.headers),
            Side::Response => self.response.as_mut().map(|head| &mut head.headers).ok_or(Impossible),
        }
    }

    fn remove(&mut self, side: Side, name: &HeaderName) -> Result<(), Impossible> {
        let headers = self.headers_mut(side)?;
        let old: Vec<ViewedValue> = headers.get_all(name).iter().cloned().map(ViewedValue::Value).collect();
        // The map drops its own copy of the name, which the module may have a view of.
        if let Some((own, _)) = headers.iter().find(|(own, _)| *own == name) {
            let own = own.clone();
            headers.remove(name);
            self.kept.push(ViewedValue::Name(own));
        }
        self.kept.extend(old);
        Ok(())
    }

    fn add(&mut self, side: Side, name: HeaderName, value: HeaderValue) -> Result<(), Impossible> {
        let headers = self.headers_mut(side)?;
        if headers.len() >= HEADERS_MAX {
            return Err(Impossible);
        }
        headers.try_append(name, value).map(|_| ()).map_err(|_| Impossible)
    }
}

fn text_of(method: &Method) -> Bytes {
    static KNOWN: [Method; 7] =
        [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::PATCH, Method::OPTIONS];
    match KNOWN.iter().find(|known| *known == method) {
        Some(known) => Bytes::from_static(known.as_str().as_bytes()),
        None => Bytes::copy_from_slice(method.as_str().as_bytes()),
    }
}

fn line(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), Impossible> {
    if value.len() > TEXT_BYTES_MAX {
        return Err(Impossible);
    }
    Ok((header_name(name)?, HeaderValue::from_bytes(value).map_err(|_| Impossible)?))
}

/// Checks that a module may set a header. Only the server sets headers that frame a message.
fn header_name(name: &[u8]) -> Result<HeaderName, Impossible> {
    if name.len() > TEXT_BYTES_MAX {
        return Err(Impossible);
    }
    let name = HeaderName::from_bytes(name).map_err(|_| Impossible)?;
    let is_framing = [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, UPGRADE, TE, TRAILER].contains(&name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings");
    if is_framing { Err(Impossible) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Room(usize);
    impl Hold for Room {
        fn hold(&self, bytes: usize) -> bool {
            bytes <= self.0
        }
        fn send(self: Box<Self>, body: Bytes) -> Body {
            body.into()
        }
    }

    fn exchange() -> Box<Exchange> {
        let request = axum::http::Request::post("/a?b=c").header("host", "h:1").header("x", "1").header("x", "2");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let origin = Origin { peer: "127.0.0.1:9".into(), is_secure: false };
        Exchange::new(parts, Body::empty(), origin, Box::new(Room(4)), 8)
    }

    #[test]
    fn only_the_side_whose_turn_it_is_changes() {
        let mut it = exchange();
        assert_eq!((it.host(), it.uri(), it.protocol()), (&b"h:1"[..], "/a?b=c", "HTTP/1.1"));
        assert_eq!(it.set_header(Side::Request, b"a", b"1"), Err(Impossible));
        it.open = Some(Side::Request);
        assert_eq!(it.set_header(Side::Request, b"X", b"3"), Ok(()));
        assert_eq!(it.headers(Side::Request).unwrap().get_all("x").iter().collect::<Vec<_>>(), ["3"]);
        assert_eq!(it.set_header(Side::Response, b"a", b"1"), Err(Impossible));
        assert_eq!((it.set_status(200), it.filter_body(Side::Response)), (Err(Impossible), Err(Impossible)));
        it.hook_ended();
        it.open = Some(Side::Response);
        assert_eq!(it.set_status(201), Err(Impossible), "there is no response yet");
        it.begin_response();
        assert_eq!(
            (it.set_status(201), it.set_status(101), it.set_status(600)),
            (Ok(()), Err(Impossible), Err(Impossible))
        );
        assert_eq!(it.set_uri(b"/"), Err(Impossible));
        assert_eq!(it.filter_body(Side::Response), Err(Impossible), "not in this hook");
        it.may_filter = true;
        assert_eq!((it.filter_body(Side::Request), it.filter_body(Side::Response)), (Err(Impossible), Ok(())));
        assert!(it.wants_pieces);
    }

    /// Views that a module was given stay valid until the hook returns.
    #[test]
    fn views_outlive_changes() {
        let mut it = exchange();
        it.open = Some(Side::Request);
        for method in [&b"SHORT"[..], b"LONGER-THAN-FITS-INTO-THE-VALUE", b"PUT"] {
            let view = it.method_text.as_ptr();
            it.set_method(method).unwrap();
            assert_eq!(it.method_text, method);
            assert!(it.kept.iter().any(|kept| matches!(kept, ViewedValue::Bytes(bytes) if bytes.as_ptr() == view)));
        }
        let view = it.uri().as_ptr();
        it.set_uri(b"/other").unwrap();
        assert!(it.kept.iter().any(|kept| matches!(kept, ViewedValue::Uri(uri) if uri.path().as_ptr() == view)));
        let view = it.headers(Side::Request).unwrap()["x"].as_bytes().as_ptr();
        it.set_header(Side::Request, b"x", b"4").unwrap();
        assert!(
            it.kept.iter().any(|kept| matches!(kept, ViewedValue::Value(value) if value.as_bytes().as_ptr() == view))
        );
        it.hook_ended();
        assert!(it.kept.is_empty());
    }

    #[test]
    fn what_frames_a_message_is_the_servers() {
        let mut it = exchange();
        it.open = Some(Side::Request);
        for name in ["Content-Length", "transfer-encoding", "connection", "upgrade", "keep-alive", "te", "trailer"] {
            assert_eq!(it.set_header(Side::Request, name.as_bytes(), b"1"), Err(Impossible), "{name}");
            assert_eq!(it.remove_header(Side::Request, name.as_bytes()), Err(Impossible), "{name}");
        }
        for (name, value) in [(&b"a b"[..], &b"1"[..]), (b"", b"1"), (b"a", b"1\r\nb: 2"), (b"a", b"\0")] {
            assert_eq!(it.add_header(Side::Request, name, value), Err(Impossible));
        }
        assert_eq!(it.set_body(Side::Request, b"1234"), Ok(()));
        assert_eq!(it.request.headers["content-length"], "4");
        assert_eq!(it.set_body(Side::Request, b"12345"), Err(Impossible), "no memory");
        assert_eq!(it.body(Side::Request).unwrap(), "1234");
    }

    #[test]
    fn methods_and_uris() {
        let mut it = exchange();
        it.open = Some(Side::Request);
        for uri in [&b""[..], b"a", b"http://x/", b"/ ", b"/\n", &[b'/'; TEXT_BYTES_MAX + 1]] {
            assert_eq!(it.set_uri(uri), Err(Impossible));
        }
        assert_eq!((it.set_uri(b"/x?y"), it.uri()), (Ok(()), "/x?y"));
        for method in [&b""[..], b"a b", b"CONNECT", &[b'A'; 65]] {
            assert_eq!(it.set_method(method), Err(Impossible));
        }
        assert_eq!(it.set_method(b"QUERY"), Ok(()));
        assert_eq!(it.request().method.as_str(), "QUERY");
    }

    #[test]
    fn headers_have_an_end() {
        let mut it = exchange();
        it.open = Some(Side::Request);
        let added = (0..2 * HEADERS_MAX).filter(|_| it.add_header(Side::Request, b"y", b"1").is_ok()).count();
        assert_eq!(added, HEADERS_MAX - 3);
        assert_eq!(it.remove_header(Side::Request, b"y"), Ok(()));
        assert_eq!(it.headers(Side::Request).unwrap().len(), 3);
    }
}

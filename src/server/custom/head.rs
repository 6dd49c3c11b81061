//! Converts heads for a component and back: the headers about the caller, and the headers that only the server sets.

use std::fmt::Write;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Frame;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::uri::{Authority, Scheme, Uri};
use snaphook_driver::ActorKind;
use snaphook_identity::Caller;

use crate::config::EndpointRole;
use crate::hooks::host::{Endpoint, UploadError};
use crate::server::forwarded;
use crate::server::problem::{Problem, Result};
use crate::server::request::Call;
use crate::server::request_id::X_REQUEST_ID;

/// Prefix of the server's headers. Headers of clients with this prefix never reach a component, nor the reverse.
const OWN_PREFIX: &str = "snaphook-";

const ACTOR: HeaderName = HeaderName::from_static("snaphook-actor");
const ROLE: HeaderName = HeaderName::from_static("snaphook-role");
const MODELS: HeaderName = HeaderName::from_static("snaphook-models");
const CLAIMS: HeaderName = HeaderName::from_static("snaphook-claims");
const ADDRESS: HeaderName = HeaderName::from_static("snaphook-address");
const MOUNT: HeaderName = HeaderName::from_static("snaphook-mount");

/// Hop-by-hop headers (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// The request for a component, and whether its client uses TLS.
pub(super) fn request(
    endpoint: &Endpoint,
    call: &Call,
    body: UnsyncBoxBody<Bytes, UploadError>,
) -> Result<(hyper::Request<UnsyncBoxBody<Bytes, UploadError>>, bool)> {
    let config = call.app.config.load();
    let origin = call.memory.share().0.origin();
    let client = forwarded::client(origin.address, origin.is_secure, call.headers(), &config.server.trusted_proxies);
    let authority = match (client.host, call.head.uri.authority()) {
        (Some(host), _) => Some(host),
        (None, Some(authority)) => Some(authority.as_str()),
        (None, None) => call.header("host")?,
    };
    let authority = authority.unwrap_or("localhost").parse::<Authority>();
    let authority = authority.map_err(|_| Problem::bad_request("`Host` is not a host with an optional port"))?;
    let scheme = if client.is_secure { Scheme::HTTPS } else { Scheme::HTTP };
    let target = call.head.uri.path_and_query().map_or("/", |target| target.as_str());
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build();
    let uri = uri.map_err(|_| Problem::bad_request("the path cannot be passed on"))?;

    let mut headers = forwardable(call.headers(), endpoint.role());
    if let Some(caller) = &call.caller {
        identify(&mut headers, caller);
    }
    if let Some(address) = client.address.and_then(|address| HeaderValue::try_from(address.to_string()).ok()) {
        headers.insert(ADDRESS, address);
    }
    if let Ok(mount) = HeaderValue::try_from(format!("{}{}", call.app.mount_path, endpoint.path())) {
        headers.insert(MOUNT, mount);
    }
    headers.insert(X_REQUEST_ID, call.request_id.clone());

    let mut request = hyper::Request::new(body);
    *request.method_mut() = call.head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok((request, client.is_secure))
}

/// The client's headers without those of the connection, of proxies and of this server. A token gives all rights of its
/// owner, so components do not get it. If the endpoint needs no token, the header is passed to the component.
fn forwardable(headers: &HeaderMap, role: EndpointRole) -> HeaderMap {
    let named: Vec<&str> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .collect();
    let is_kept = |name: &HeaderName| {
        let text = name.as_str();
        !(HOP_BY_HOP.contains(name)
            || named.iter().any(|named| named.eq_ignore_ascii_case(text))
            || *name == HOST
            || *name == FORWARDED
            || (*name == AUTHORIZATION && role != EndpointRole::Anyone)
            || text.starts_with("x-forwarded-")
            || text.starts_with(OWN_PREFIX))
    };
    let mut kept = HeaderMap::with_capacity(headers.len() + 6);
    for (name, value) in headers.iter().filter(|(name, _)| is_kept(name)) {
        kept.append(name.clone(), value.clone());
    }
    kept
}

/// Adds the caller's headers. Names may contain any character, so they are percent-encoded.
fn identify(headers: &mut HeaderMap, caller: &Caller) {
    let mut insert = |name, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    let (kind, id) = (caller.actor.kind, encoded(&caller.actor.id));
    let is_named = matches!(kind, ActorKind::Token | ActorKind::Oidc);
    insert(ACTOR, &if is_named { format!("{}:{id}", kind.as_str()) } else { id });
    insert(ROLE, &caller.role.to_string());
    insert(MODELS, &caller.models.patterns().join(", "));
    if let Some(claims) = &caller.actor.claims {
        insert(CLAIMS, &ascii(claims.as_str()));
    }
}

/// Visible ASCII unchanged except `%`; all other bytes as `%XX`.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_graphic() && byte != b'%' {
            true => encoded.push(char::from(byte)),
            false => {
                // Writing into a `String` cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// JSON text with escapes for everything outside of ASCII, and without line breaks between its values.
fn ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{20}'..='\u{7e}' => ascii.push(character),
            // Inside a string JSON has no control characters.
            control if control.is_ascii_control() => ascii.push(' '),
            other => other.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(ascii, "\\u{unit:04x}");
            }),
        }
    }
    ascii
}

/// Removes headers from a component's response that only the server may set: those of the connection, those of CORS
/// (see `[server.cors]`), and the server's own.
pub(super) fn clean(headers: &mut HeaderMap) {
    remove(headers, |name| name == X_REQUEST_ID);
    if !headers.contains_key(X_CONTENT_TYPE_OPTIONS) {
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
}

/// The same for trailers.
pub(super) fn clean_trailers(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        remove(trailers, |name| [CONTENT_LENGTH, TRAILER, HOST, X_REQUEST_ID].contains(name));
    }
    frame
}

fn remove(headers: &mut HeaderMap, more: impl Fn(&HeaderName) -> bool) {
    let is_removed = |name: &&HeaderName| {
        let text = name.as_str();
        HOP_BY_HOP.contains(name) || text.starts_with("access-control-") || text.starts_with(OWN_PREFIX) || more(name)
    };
    let removed: Vec<HeaderName> = headers.keys().filter(is_removed).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&str, &str)]) -> HeaderMap {
        let pairs = headers.iter().map(|(name, value)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        });
        pairs.collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_not_the_components_business_is_left_out() {
        let sent = map(&[
            ("accept", "*/*"),
            ("authorization", "Bearer x"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("host", "a"),
            ("forwarded", "for=1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4"),
            ("snaphook-actor", "token:admin"),
            ("te", "trailers"),
            ("cookie", "a=b"),
        ]);
        assert_eq!(names(&forwardable(&sent, EndpointRole::Reader)), ["accept", "cookie"]);
        assert_eq!(names(&forwardable(&sent, EndpointRole::Anyone)), ["accept", "authorization", "cookie"]);
        let mut answered = map(&[
            ("content-type", "text/plain"),
            ("access-control-allow-origin", "*"),
            ("snaphook-position", "7"),
            ("transfer-encoding", "chunked"),
            ("x-request-id", "x"),
        ]);
        clean(&mut answered);
        assert_eq!(names(&answered), ["content-type", "x-content-type-options"]);
    }

    #[test]
    fn names_and_claims_are_ascii() {
        assert_eq!(encoded("oidc:a b%\n\u{e9}"), "oidc:a%20b%25%0A%C3%A9");
        assert_eq!(ascii("{\"n\":\n\"\u{e9}\u{1f600}\"}"), "{\"n\": \"\\u00e9\\ud83d\\ude00\"}");
    }
}

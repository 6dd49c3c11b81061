//! `[server] redirect-http`: redirects every plain HTTP request to HTTPS.
//!
//! It only redirects to hosts of this server: those of its certificate, the address of the connection, and `localhost`
//! on this machine. So nobody can make it redirect elsewhere, nor make a cache store such a response.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderValue, LOCATION, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::connection::ACCEPT_PAUSE;
use super::listener::is_of_peer;
use super::tls::Tls;

type Response = hyper::Response<String>;

/// Concurrent connections. Each ends with its response.
const CONNECTIONS_MAX: usize = 256;

/// From the connection to the end of the response.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Redirects to the TLS port `port` until the server stops.
pub(super) async fn serve(listener: TcpListener, tls: Arc<Tls>, port: u16, mut stopping: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // It is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, Arc::clone(&tls), port);
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION_TIME_MAX, connection).await;
                    drop(permit);
                });
            }
            Err(error) if is_of_peer(&error) => {}
            Err(error) => {
                tracing::warn!("cannot accept a connection to redirect: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, tls: Arc<Tls>, port: u16) {
    let own = stream.local_addr().ok().map(|address| address.ip().to_canonical());
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&request, &tls, own, port);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection to redirect ended early: {error}");
    }
}

fn respond<B>(request: &Request<B>, tls: &Tls, own: Option<IpAddr>, port: u16) -> Response {
    let mut hosts = request.headers().get_all(HOST).iter();
    let authority = match (request.uri().authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, None) => Some(authority.as_str()),
        (None, Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    let host = authority.and_then(host).filter(|host| is_own(host, tls, own));
    let (Some(host), false) = (host, request.method() == Method::CONNECT) else {
        return response(StatusCode::BAD_REQUEST, "this server speaks https, but not under this name\n", None);
    };
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    // OPTIONS may have `*` instead of a path.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    match HeaderValue::try_from(format!("https://{host}{port}{path}")) {
        Ok(location) => response(StatusCode::PERMANENT_REDIRECT, "this server speaks https\n", Some(location)),
        Err(_) => response(StatusCode::BAD_REQUEST, "this path cannot be redirected\n", None),
    }
}

fn response(status: StatusCode, text: &str, location: Option<HeaderValue>) -> Response {
    let mut response = Response::new(text.to_owned());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.extend(location.map(|location| (LOCATION, location)));
    response
}

/// The host of `host[:port]`, if it is valid: without characters that have a meaning in a URL.
fn host(authority: &str) -> Option<&str> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    };
    let is_name = || host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let is_address = || in_brackets(host).is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit());
    (is_port && !host.is_empty() && host.len() <= 253 && (is_name() || is_address())).then_some(host)
}

fn in_brackets(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

fn is_own(host: &str, tls: &Tls, own: Option<IpAddr>) -> bool {
    let bare = in_brackets(host).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>()
        && own == Some(address.to_canonical())
    {
        return true;
    }
    let is_here = own.is_some_and(|own| own.is_loopback()) && host.eq_ignore_ascii_case("localhost");
    is_here || tls.is_for(bare)
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn hosts() {
        for (authority, expected) in [
            ("example.com", Some("example.com")),
            ("example.com:80", Some("example.com")),
            ("example.com:", Some("example.com")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("127.0.0.1:8080", Some("127.0.0.1")),
            ("", None),
            (":80", None),
            ("a b", None),
            ("user@example.com", None),
            ("example.com/evil", None),
            ("example.com\\evil", None),
            ("example.com:80:90", None),
            ("example.com:80@evil.com", None),
            ("example.com#", None),
            ("example.com?", None),
            ("%65vil.com", None),
            ("[::1", None),
            ("[evil.com]", None),
            ("::1", None),
        ] {
            assert_eq!(host(authority), expected, "{authority}");
        }
        assert_eq!(host(&"a".repeat(254)), None);
    }
}

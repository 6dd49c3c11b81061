//! Serves opened stores to remote drivers: `POST /{store}/{method}`.

mod browser;
mod connections;
mod limits;
mod served;
mod stalling;
mod tls;
mod token;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use snaphook_driver::wire::{Method, Opened, encode, encode_error};
use snaphook_driver::{DriverError, ErrorKind};
use tokio::net::TcpListener;

use self::limits::BodyBudget;
pub use self::limits::HostLimits;
use self::served::Served;
pub use self::tls::TlsError;
use self::token::Token;
use crate::encoding::Encoding;

/// The options of a host.
#[derive(Clone, Default)]
pub struct HostOptions {
    /// The token that requests must send in `Authorization: Bearer`. `None`: every program on this machine is served,
    /// except pages in a browser.
    pub token: Option<String>,
    /// Certificate chain and private key, as PEM; `None`: plain HTTP.
    pub tls: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether a driver that closes its store also closes it here. Otherwise the stores stay open for others.
    pub closes: bool,
}

/// A listener that serves stores until it is stopped.
pub struct Host {
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
    shared: HostState,
}

struct HostState {
    services: HashMap<&'static str, Arc<Served>>,
    token: Option<Token>,
    closes: bool,
    limits: HostLimits,
    bodies: BodyBudget,
}

impl Host {
    /// Serves at most one store of each kind; if there are several, the last one.
    pub fn new(listener: TcpListener, stores: Vec<Opened>, options: HostOptions) -> Result<Host, TlsError> {
        let tls = options.tls.map(|(certificate, key)| tls::acceptor(&certificate, &key)).transpose()?;
        let services = stores.into_iter().map(|opened| (opened.store().as_str(), Served::new(opened))).collect();
        let token = options.token.as_deref().map(Token::new);
        let (limits, bodies) = (HostLimits::default(), BodyBudget::default());
        let shared = HostState { services, token, closes: options.closes, limits, bodies };
        Ok(Host { listener, tls, shared })
    }

    /// Replaces the default limits.
    #[must_use]
    pub fn with_limits(mut self, limits: HostLimits) -> Host {
        self.shared.limits = limits;
        self
    }

    /// Serves until `stop` is done. After that no append is in progress, unless one takes longer than a few seconds.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let shared = Arc::new(self.shared);
        let router = Router::new()
            .route("/{store}/{method}", post(serve))
            .fallback(no_such_address)
            .method_not_allowed_fallback(no_such_address)
            // `limits` limits the size of the body.
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shared));
        connections::serve(self.listener, self.tls, shared.limits, router, stop).await?;
        let settled = async {
            for served in shared.services.values() {
                served.settled().await;
            }
        };
        let _ = tokio::time::timeout(connections::GRACE, settled).await;
        Ok(())
    }
}

async fn serve(
    State(shared): State<Arc<HostState>>,
    Path((store, method)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(token) = &shared.token
        && !headers.get(AUTHORIZATION).is_some_and(|value| token.is_carried_by(value.as_bytes()))
    {
        let error = DriverError::new(ErrorKind::Config, method, "the token is missing or wrong");
        let response = failure(Encoding::Json, &error);
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], response).into_response();
    }
    if shared.token.is_none() && browser::is_from_a_page(&headers) {
        let message = "without a token, this host rejects requests from browser pages and requests for other host \
                       names; start it with `--token`";
        let error = DriverError::new(ErrorKind::Config, method, message);
        return (StatusCode::FORBIDDEN, failure(Encoding::Json, &error)).into_response();
    }
    let Some(encoding) = text(CONTENT_TYPE).and_then(Encoding::from_media_type) else {
        let message = "the media type is not supported, expected `application/json` or `application/x-protobuf`";
        let error = DriverError::new(ErrorKind::Invalid, method, message);
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, failure(Encoding::Json, &error)).into_response();
    };
    match answer(&shared, &store, &method, encoding, body).await {
        Ok(body) => ([(CONTENT_TYPE, encoding.media_type())], body).into_response(),
        Err(error) => failure(encoding, &error),
    }
}

/// The body of a response.
async fn answer(
    shared: &HostState,
    store: &str,
    name: &str,
    encoding: Encoding,
    body: Body,
) -> Result<Body, DriverError> {
    let invalid = |message: String| DriverError::new(ErrorKind::Invalid, name.to_owned(), message);
    let Some(served) = shared.services.get(store) else {
        return Err(invalid(format!("no {store} storage is served here")));
    };
    let method = Method::from_path(store, name);
    let under_way = match method {
        Some(method) => served.begin(method).await,
        None => None,
    };
    let (lease, request) = shared.bodies.read(name, body, shared.limits.body_time).await?;
    let unreadable = |error| invalid(format!("the request cannot be read: {error}"));
    let unwritable = |error| {
        DriverError::new(ErrorKind::Unexpected, name.to_owned(), format!("the response cannot be written: {error}"))
    };
    if name == "open" {
        encoding.read("OpenRequest", request).map_err(unreadable)?;
        let response = encoding.write("OpenResponse", encode(&served.service.describe(1))).map_err(unwritable)?;
        return shared.bodies.respond(name, lease, response, true);
    }
    let Some(method) = method else {
        return Err(invalid(format!("{store} storage has no method `{name}`")));
    };
    let is_close = matches!(method, Method::SecureClose | Method::EventClose | Method::ModelClose | Method::ErrorClose);
    if is_close && !shared.closes {
        return shared.bodies.respond(name, lease, encoding.write("Empty", Vec::new()).map_err(unwritable)?, true);
    }
    let request = encoding.read(&method.request(), request).map_err(unreadable)?;
    let (response, (lease, _)) = served.call(method, request, (lease, under_way)).await?;
    let response = encoding.write(&method.response(), response).map_err(unwritable)?;
    shared.bodies.respond(name, lease, response, method.changes())
}

async fn no_such_address() -> Response {
    let message = "this path does not exist, expected `POST /{store}/{method}`";
    let error = DriverError::new(ErrorKind::Invalid, "call", message);
    (StatusCode::NOT_FOUND, failure(Encoding::Json, &error)).into_response()
}

fn failure(encoding: Encoding, error: &DriverError) -> Response {
    let status = match error.kind() {
        ErrorKind::Config | ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::TooComplex => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable | ErrorKind::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    // An error always has a JSON form.
    let body = encoding.write("Error", encode_error(error)).unwrap_or_default();
    (status, [(CONTENT_TYPE, encoding.media_type())], body).into_response()
}

//! CORS headers for pages of other sites that the admin allows (`[server.cors]`).

use std::time::Duration;

use hyper::Method;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, LOCATION, RETRY_AFTER,
};
use tower_http::cors::CorsLayer;

use crate::config::CorsConfig;

/// How long a browser may cache a preflight response.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The layer that responds to preflight requests, and sets the headers of other responses.
pub(super) fn layer(config: &CorsConfig) -> CorsLayer {
    let named = HeaderName::from_static;
    let sent = [
        ACCEPT,
        AUTHORIZATION,
        CONTENT_TYPE,
        IF_MATCH,
        IF_NONE_MATCH,
        named("idempotency-key"),
        named("last-event-id"),
        named("prefer"),
        named("snaphook-min-position"),
        named("x-request-id"),
    ];
    let seen =
        [ETAG, LOCATION, RETRY_AFTER, named("preference-applied"), named("snaphook-position"), named("x-request-id")];
    // The configuration accepts nothing else.
    let origins = config.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(origins.collect::<Vec<_>>())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(sent)
        .expose_headers(seen)
        .allow_credentials(config.credentials)
        .max_age(MAX_AGE)
}

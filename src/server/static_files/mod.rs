//! `[server.static]`: files beside the API, by tower-http's `ServeDir`.
//!
//! `ServeDir` knows ranges, conditions, types and precompressed files; what it may open is decided in [`beneath`], on the file
//! itself. Names are checked before: hidden ones and those that mean something else on another system are no files.

mod beneath;
mod names;

use std::convert::Infallible;
use std::io;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::Extensions;
use hyper::{Method, Request, StatusCode, Uri, Version};
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tower_http::compression::{Compression, CompressionLevel};
use tower_http::services::ServeDir;
use tower_http::services::fs::DefaultServeDirFallback;
use tower_service::Service;

use self::beneath::Beneath;
use super::problem::{Problem, ProblemType, Result};
use super::query::shorten;
use super::reply::{ReplyBody, Response};
use crate::config::{Config, ConfigError, ConfigErrors, StaticConfig};

/// Methods of a file.
const METHODS: &str = "GET, HEAD";

/// Smaller files gain nothing by compression.
const COMPRESSED_BYTES_MIN: u64 = 1024;

/// Larger ones cost too much each time: those are compressed once, beside the file.
const COMPRESSED_BYTES_MAX: u64 = 4 << 20;

/// What is read of a file at once.
const PIECE_BYTES: usize = 64 * 1024;

type Directory = ServeDir<DefaultServeDirFallback, Beneath>;

/// A folder of files.
pub(super) struct StaticFiles {
    directory: Directory,
    /// The path of the fallback, as a client would ask for it.
    fallback: Option<Uri>,
}

/// What is wrong with the folder of a configuration.
pub fn check(config: &Config) -> std::result::Result<(), ConfigErrors> {
    let Some(StaticConfig { directory, line, .. }) = &config.server.static_files else { return Ok(()) };
    if directory.is_dir() {
        return Ok(());
    }
    let message = format!("`server.static.directory` is `{}`, which is not a folder", directory.display());
    Err(ConfigErrors::new(config.name(), vec![ConfigError::new(*line, message)]))
}

impl StaticFiles {
    pub(super) fn new(config: &StaticConfig) -> StaticFiles {
        let directory = ServeDir::with_backend("", Beneath::new(&config.directory))
            .precompressed_br()
            .precompressed_gzip()
            .ignore_multi_range_requests(true)
            .with_buf_chunk_size(PIECE_BYTES);
        StaticFiles { directory, fallback: config.fallback.as_deref().and_then(names::path_of) }
    }

    /// A file, or the fallback for a page.
    pub(super) async fn answer(&self, method: Method, uri: &Uri, headers: &HeaderMap) -> Result<Response> {
        let path = uri.path();
        let missing = || Problem::not_found(format!("no route and no file `{}`", shorten(path)));
        let may_be_file = names::is_plain(path);
        if method != Method::GET && method != Method::HEAD {
            return Err(if may_be_file { Problem::method_not_allowed(METHODS.to_owned()) } else { missing() });
        }
        if may_be_file {
            let response = self.open(&method, path_only(uri), headers).await;
            if response.status() != StatusCode::NOT_FOUND {
                return self.finish(response, path);
            }
        }
        match &self.fallback {
            // A script or an image that is missing is missing.
            Some(fallback) if may_be_file && wants_page(headers) => {
                let mut headers = headers.clone();
                // Which file it is depends on what else there is: it is sent whole, and asked for each time.
                headers.remove(RANGE);
                let mut response = self.open(&method, fallback.clone(), &headers).await;
                if response.status() == StatusCode::NOT_FOUND {
                    return Err(missing());
                }
                response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                self.finish(response, path)
            }
            _ => Err(missing()),
        }
    }

    async fn open(&self, method: &Method, uri: Uri, headers: &HeaderMap) -> Response {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        // `ServeDir` does not compare it: the whole file is always right.
        if headers.contains_key(IF_RANGE) {
            request.headers_mut().remove(RANGE);
        }
        // Its errors are responses.
        if accepts_gzip(headers) {
            let mut service = Compression::new(self.directory.clone())
                .quality(CompressionLevel::Fastest)
                .compress_when(SizeAbove::new(COMPRESSED_BYTES_MIN).and(is_compressible as Decision));
            match service.call(request).await {
                Ok(response) => response.map(|body| ReplyBody::Frames(Box::pin(body.map_err(io::Error::other)))),
                Err(never) => match never {},
            }
        } else {
            let response: std::result::Result<_, Infallible> = self.directory.clone().call(request).await;
            match response {
                Ok(response) => response.map(|body| ReplyBody::Frames(Box::pin(body.map_err(io::Error::other)))),
                Err(never) => match never {},
            }
        }
    }

    /// The response with what `ServeDir` leaves out.
    fn finish(&self, mut response: Response, path: &str) -> Result<Response> {
        match response.status() {
            StatusCode::PRECONDITION_FAILED => {
                let message = format!("a condition of the request is not met for the file `{}`", shorten(path));
                return Err(Problem::new(ProblemType::PreconditionFailed, message));
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let message = format!("the file `{}` has no bytes in that range", shorten(path));
                let content_range = response.headers_mut().remove(CONTENT_RANGE).map(Box::new);
                return Err(Problem { content_range, ..Problem::new(ProblemType::RangeNotSatisfiable, message) });
            }
            status if status.is_server_error() => {
                return Err(Problem::new(
                    ProblemType::Internal,
                    format!("the file `{}` cannot be read", shorten(path)),
                ));
            }
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            _ => *response.body_mut() = ReplyBody::default(),
        }
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(of_text) = headers.get(CONTENT_TYPE).and_then(with_charset) {
            headers.insert(CONTENT_TYPE, of_text);
        }
        // Compressed on the way out: the same bytes are not promised again.
        if headers.contains_key(CONTENT_ENCODING)
            && !headers.contains_key(CONTENT_LENGTH)
            && let Some(weak) = headers.get(ETAG).and_then(weakened)
        {
            headers.insert(ETAG, weak);
            headers.remove(ACCEPT_RANGES);
        }
        Ok(response)
    }
}

type Decision = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

fn is_compressible(status: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let length = text(CONTENT_LENGTH).parse::<u64>();
    let kind = text(CONTENT_TYPE);
    let is_text = kind.starts_with("text/")
        || ["+json", "+xml", "/json", "/javascript", "/xml", "/wasm"].iter().any(|end| kind.ends_with(end));
    status == StatusCode::OK && is_text && length.is_ok_and(|length| length <= COMPRESSED_BYTES_MAX)
}

/// The path and the query: what else may stand in a request line is of no use for a file.
fn path_only(uri: &Uri) -> Uri {
    uri.path_and_query().cloned().map(Uri::from).unwrap_or_default()
}

/// The elements of a list header, with their quality.
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = (&str, f32)> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|element| {
        let mut parts = element.split(';').map(str::trim);
        let value = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        (value, quality.map_or(1.0, |quality| quality.parse().unwrap_or(0.0)))
    })
}

fn wants_page(headers: &HeaderMap) -> bool {
    elements(headers, ACCEPT).any(|(kind, quality)| kind.eq_ignore_ascii_case("text/html") && quality > 0.0)
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    elements(headers, ACCEPT_ENCODING).any(|(coding, quality)| coding.eq_ignore_ascii_case("gzip") && quality > 0.0)
}

fn with_charset(kind: &HeaderValue) -> Option<HeaderValue> {
    let kind = kind.to_str().ok()?;
    let is_bare = kind.starts_with("text/") && !kind.contains("charset");
    is_bare.then(|| HeaderValue::try_from(format!("{kind}; charset=utf-8")).ok()).flatten()
}

fn weakened(tag: &HeaderValue) -> Option<HeaderValue> {
    let tag = tag.to_str().ok()?;
    (!tag.starts_with("W/")).then(|| HeaderValue::try_from(format!("W/{tag}")).ok()).flatten()
}

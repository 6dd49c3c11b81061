//! `/docs`: a page to browse the OpenAPI document with Swagger UI. Everything it needs is in the binary, and its policy
//! prevents the browser from requests to other servers.

use std::sync::OnceLock;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY};
use sha2::{Digest, Sha256};

use super::openapi::serve::Selection;
use super::precondition;
use super::problem::{Problem, Result};
use super::query::shorten;
use super::reply::{Reply, ReplyBody, Response};
use super::request::Call;

/// Only scripts, styles and requests of this server; no framing. Swagger UI has images in its styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
struct File {
    name: &'static str,
    media_type: &'static str,
    stored: Stored,
    content: OnceLock<Bytes>,
    tag: OnceLock<String>,
}

/// A file as it is in the binary.
enum Stored {
    Plain(&'static [u8]),
    /// Compressed with zstd; decompressed at the first request.
    Compressed(&'static [u8]),
}

impl File {
    const fn new(name: &'static str, media_type: &'static str, content: &'static [u8]) -> File {
        File::stored(name, media_type, Stored::Plain(content))
    }

    const fn stored(name: &'static str, media_type: &'static str, stored: Stored) -> File {
        File { name, media_type, stored, content: OnceLock::new(), tag: OnceLock::new() }
    }

    fn content(&self) -> &Bytes {
        self.content.get_or_init(|| match self.stored {
            Stored::Plain(content) => Bytes::from_static(content),
            // It is a part of the binary, and a test reads it.
            Stored::Compressed(content) => zstd::decode_all(content).unwrap_or_default().into(),
        })
    }

    fn tag(&self) -> &str {
        self.tag.get_or_init(|| format!("\"{}\"", &format!("{:x}", Sha256::digest(self.content()))[..32]))
    }

    fn answer(&self, call: &Call) -> Response {
        let reply = |status| {
            let reply = Reply::new(status).header(ETAG, self.tag()).fixed(CACHE_CONTROL, "no-cache");
            reply.fixed(CONTENT_SECURITY_POLICY, POLICY).fixed(REFERRER_POLICY, "no-referrer")
        };
        if precondition::has_tag(call.headers(), self.tag()) {
            return reply(StatusCode::NOT_MODIFIED).empty();
        }
        let reply = reply(StatusCode::OK).fixed(CONTENT_TYPE, self.media_type);
        reply.body(ReplyBody::Shared(self.content().clone()))
    }
}

static PAGE: File = File::new("page.html", "text/html; charset=utf-8", include_bytes!("page.html"));

static FILES: [File; 7] = [
    File::new("page.js", "text/javascript; charset=utf-8", include_bytes!("page.js")),
    File::new("page.css", "text/css; charset=utf-8", include_bytes!("page.css")),
    File::stored(
        "swagger-ui-bundle.js",
        "text/javascript; charset=utf-8",
        Stored::Compressed(include_bytes!("swagger-ui/swagger-ui-bundle.js.zst")),
    ),
    File::new(
        "swagger-ui-bundle.js.LICENSE.txt",
        "text/plain; charset=utf-8",
        include_bytes!("swagger-ui/swagger-ui-bundle.js.LICENSE.txt"),
    ),
    File::stored(
        "swagger-ui.css",
        "text/css; charset=utf-8",
        Stored::Compressed(include_bytes!("swagger-ui/swagger-ui.css.zst")),
    ),
    File::new("LICENSE.txt", "text/plain; charset=utf-8", include_bytes!("swagger-ui/LICENSE")),
    File::new("NOTICE.txt", "text/plain; charset=utf-8", include_bytes!("swagger-ui/NOTICE")),
];

/// `GET /docs`. Its query is passed on to the document.
pub(super) async fn page(call: &Call) -> Result<Response> {
    Selection::of(call)?;
    Ok(PAGE.answer(call))
}

/// `GET /docs/{file}`
pub(super) async fn file(call: &Call) -> Result<Response> {
    call.no_query()?;
    let name = call.param("file");
    let file = FILES.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| Problem::not_found(format!("the page has no file `{}`", shorten(name))))?;
    Ok(file.answer(call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swagger_ui_is_as_it_was_published() {
        for (name, digest) in [
            ("swagger-ui-bundle.js", "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2"),
            ("swagger-ui.css", "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d"),
        ] {
            let file = FILES.iter().find(|file| file.name == name).expect("a file");
            assert_eq!(format!("{:x}", Sha256::digest(file.content())), digest, "{name}");
        }
    }

    #[test]
    fn the_page_names_files_that_are_there() {
        let page = std::str::from_utf8(PAGE.content()).expect("text");
        let named: Vec<&str> = page.split("docs/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(named.len(), 4);
        for name in named {
            assert!(FILES.iter().any(|file| file.name == name), "{name}");
        }
    }
}

//! A module that compresses suitable responses, piece by piece, for clients that accept gzip.
//!
//! `cargo build -p snaphook-module --example module_gzip`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use snaphook_module::{Answer, Config, Exchange, Filtered, Hooks, Host, Module, Output, RequestHandler, Side, Text};

/// Shorter bodies gain nothing.
const LENGTH_MIN: usize = 256;

struct Gzip;

impl Module for Gzip {
    type Connection = ();
    type Request = GzipRequest;
    const HOOKS: Hooks = Hooks::RESPONSE.and(Hooks::RESPONSE_BODY);

    fn activate(_: Host, _: &Config<'_>) -> Result<Self, String> {
        Ok(Gzip)
    }

    fn request(&self, _: Option<&()>, _: &mut Exchange<'_>) -> GzipRequest {
        GzipRequest { encoder: None }
    }
}

struct GzipRequest {
    encoder: Option<GzEncoder<Vec<u8>>>,
}

fn text(value: Option<&[u8]>) -> &str {
    value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
}

/// Whether a client explicitly accepts gzip.
fn takes_gzip(accept_encoding: &str) -> bool {
    accept_encoding.split(',').map(str::trim).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let mut weight = parts.clone().skip(1).filter_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        parts.next() == Some("gzip") && weight.next() != Some(0.0)
    })
}

impl RequestHandler for GzipRequest {
    fn response(&mut self, exchange: &mut Exchange<'_>) -> Answer {
        let content_type = text(exchange.header(Side::Response, "content-type"));
        let is_text = content_type.starts_with("text/") && !content_type.starts_with("text/event-stream");
        let is_worth_it = is_text || content_type.starts_with("application/json");
        let length = text(exchange.header(Side::Response, "content-length")).parse::<usize>();
        if exchange.text(Text::Method) == "HEAD"
            || exchange.status() != Some(200)
            || !is_worth_it
            || length.is_ok_and(|length| length < LENGTH_MIN)
            || exchange.header(Side::Response, "content-encoding").is_some()
        {
            return Answer::Declined;
        }
        exchange.add_header(Side::Response, "vary", "accept-encoding");
        if takes_gzip(text(exchange.header(Side::Request, "accept-encoding")))
            && exchange.filter_body(Side::Response)
            && exchange.set_header(Side::Response, "content-encoding", "gzip")
        {
            self.encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
            // The bytes have changed, so a strong tag would be wrong.
            let tag = text(exchange.header(Side::Response, "etag")).to_owned();
            if tag.starts_with('"') {
                exchange.set_header(Side::Response, "etag", format!("W/{tag}"));
            }
        }
        Answer::Declined
    }

    fn response_body(&mut self, bytes: &[u8], is_last: bool, output: &mut Output<'_>) -> Filtered {
        let Some(encoder) = &mut self.encoder else { return Filtered::Unchanged };
        let written = encoder.write_all(bytes).is_ok() && (!is_last || encoder.try_finish().is_ok());
        let compressed = std::mem::take(encoder.get_mut());
        if written && output.write(Side::Response, &compressed) { Filtered::Replaced } else { Filtered::Failed }
    }
}

snaphook_module::export_module!("gzip", Gzip);

//! A module that asks for a name and a password before any other module.
//!
//! `cargo build -p snaphook-module --example module_basic_auth`; settings: `config = { user = 'me', password = 'secret:door' }`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use snaphook_module::{Answer, Config, Exchange, Hooks, Host, Module, RequestHandler, Side};

struct BasicAuth {
    /// The expected value of the header.
    expected: String,
}

impl Module for BasicAuth {
    type Connection = ();
    type Request = Asked;
    const HOOKS: Hooks = Hooks::BEFORE_REQUEST.and(Hooks::REQUEST_ERROR);

    fn activate(_: Host, config: &Config<'_>) -> Result<Self, String> {
        let setting = |key: &str| config.get(key).ok_or_else(|| format!("`{key}` is missing"));
        let pair = format!("{}:{}", setting("user")?, setting("password")?);
        Ok(BasicAuth { expected: format!("Basic {}", STANDARD.encode(pair)) })
    }

    fn request(&self, _: Option<&()>, exchange: &mut Exchange<'_>) -> Asked {
        let sent = exchange.header(Side::Request, "authorization").unwrap_or_default();
        Asked { is_known: is_same(sent, self.expected.as_bytes()) }
    }
}

/// Takes the same time wherever the two differ, so that timing reveals nothing.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

struct Asked {
    is_known: bool,
}

impl RequestHandler for Asked {
    fn before_request(&mut self, exchange: &mut Exchange<'_>) -> Answer {
        if !self.is_known {
            return Answer::Status(401);
        }
        // It is not a token of the API.
        exchange.remove_header(Side::Request, "authorization");
        Answer::Declined
    }

    fn request_error(&mut self, exchange: &mut Exchange<'_>, status: u16) -> Answer {
        if status == 401 && !self.is_known {
            exchange.set_header(Side::Response, "www-authenticate", "Basic realm=\"snaphook\", charset=\"UTF-8\"");
        }
        Answer::Declined
    }
}

snaphook_module::export_module!("basic-auth", BasicAuth);

//! {{name}}: requires a user name and a password for every request (HTTP Basic authentication).
//!
//! Settings: `config = { user = 'me', password = 'secret:door' }`.

wit_bindgen::generate!({ path: "wit", world: "module", generate_all });

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use self::exports::snaphook::module::{before_request, request_error};
use self::snaphook::module::config;
use self::snaphook::module::types::{Decision, Header, HeaderChange, Request, RequestChange, Response, ResponseChange};

struct Module;

export!(Module);

impl before_request::Guest for Module {
    fn handle(request: Request) -> Result<(Decision, RequestChange), u16> {
        let expected = expected().ok_or(500_u16)?;
        let sent = request.headers.iter().find(|header| header.name == "authorization");
        if !sent.is_some_and(|header| is_same(&header.value, expected.as_bytes())) {
            return Err(401);
        }
        // Removed, because the API would take it for a token.
        let headers = vec![HeaderChange::Remove("authorization".to_owned())];
        Ok((Decision::Declined, RequestChange { method: None, uri: None, headers, body: None }))
    }
}

impl request_error::Guest for Module {
    fn handle(_: Request, response: Response) -> Result<Option<ResponseChange>, u16> {
        if response.status != 401 {
            return Ok(None);
        }
        let value = b"Basic realm=\"snaphook\", charset=\"UTF-8\"".to_vec();
        let headers = vec![HeaderChange::Set(Header { name: "www-authenticate".to_owned(), value })];
        Ok(Some(ResponseChange { status: None, headers, body: None }))
    }
}

/// The expected value of the header.
fn expected() -> Option<String> {
    let settings: serde_json::Value = serde_json::from_str(&config::settings()).ok()?;
    let pair = format!("{}:{}", settings["user"].as_str()?, settings["password"].as_str()?);
    Some(format!("Basic {}", STANDARD.encode(pair)))
}

/// Compares in constant time, so that timing reveals nothing.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

//! {{name}}: responds with the caller and the requested path.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

wit_bindgen::generate!({ path: "wit", world: "capabilities", generate_all });

use self::snaphook::hook::log;

struct Endpoint;

wasip2::http::proxy::export!(Endpoint);

impl Guest for Endpoint {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        log::write(log::Level::Info, &format!("asked for {path}"));
        // The caller is in headers that clients cannot set.
        let actor = request.headers().get("snaphook-actor").into_iter().next().unwrap_or_else(|| b"nobody".to_vec());
        let actor = String::from_utf8_lossy(&actor).into_owned();
        send(out, 200, &format!("hello {actor}, this is {path}\n"));
    }
}

fn send(out: ResponseOutparam, status: u16, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    // Both fail only for an invalid status, and for a second body.
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        // At most 4096 bytes at once. The run ends when the client disconnects.
        for piece in text.as_bytes().chunks(4096) {
            let _ = stream.blocking_write_and_flush(piece);
        }
    }
    let _ = OutgoingBody::finish(body, None);
}

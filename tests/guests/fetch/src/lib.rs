//! A post hook that sends a request with `wasi:http/outgoing-handler`, as the HTTP libraries of most languages do, instead of
//! with the package's own `http`. The data contains the request; the hook logs the response.
//!
//! It is declared for post phases only: the server must reject a binding to a pre phase.

use serde::Deserialize;
use snaphook_hook::{Change, Error, Hook, Result, log};
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;

struct Fetch;

snaphook_hook::export!(Fetch: react);

#[derive(Deserialize)]
struct Data {
    /// `host:port`
    authority: String,
    path: String,
    body: String,
}

impl Hook for Fetch {
    type Data = Data;

    fn react(change: &Change<Data>) -> Result<()> {
        let Some(data) = &change.after else { return Ok(()) };
        match send(data) {
            Ok((status, text)) => log::info(format!("wasi:http answered {status}: {text}")),
            Err(Failed::Code(code)) => return Err(Error::Fail(format!("wasi:http: {code:?}"))),
            Err(Failed::Step(step)) => return Err(Error::Fail(format!("it could not {step}"))),
        }
        Ok(())
    }
}

enum Failed {
    Code(ErrorCode),
    /// The step that failed, in the guest or in the host.
    Step(&'static str),
}

fn step<E>(name: &'static str) -> impl Fn(E) -> Failed {
    move |_| Failed::Step(name)
}

fn send(data: &Data) -> std::result::Result<(u16, String), Failed> {
    let headers =
        Fields::from_list(&[("content-type".to_owned(), b"text/plain".to_vec())]).map_err(step("set headers"))?;
    let request = OutgoingRequest::new(headers);
    request.set_method(&Method::Post).map_err(step("set the method"))?;
    request.set_scheme(Some(&Scheme::Http)).map_err(step("set the scheme"))?;
    request.set_authority(Some(&data.authority)).map_err(step("set the authority"))?;
    request.set_path_with_query(Some(&data.path)).map_err(step("set the path"))?;
    let body = request.body().map_err(step("open the body"))?;
    let answer = handle(request, None).map_err(Failed::Code)?;
    let stream = body.write().map_err(step("write the body"))?;
    // Ignored: if the host has denied the request, the stream is closed, and the response has the error.
    let _ = stream.blocking_write_and_flush(data.body.as_bytes());
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
    answer.subscribe().block();
    let answer = answer.get().ok_or(Failed::Step("wait for the answer"))?.map_err(step("take the answer"))?;
    let answer = answer.map_err(Failed::Code)?;
    Ok((answer.status(), text(&answer)?))
}

fn text(answer: &IncomingResponse) -> std::result::Result<String, Failed> {
    let body = answer.consume().map_err(step("take the answer's body"))?;
    let stream = body.stream().map_err(step("read the answer"))?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(4096) {
            Ok(part) => bytes.extend(part),
            Err(StreamError::Closed) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(StreamError::LastOperationFailed(_)) => return Err(Failed::Step("read the answer to its end")),
        }
    }
}

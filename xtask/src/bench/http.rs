//! The part of HTTP/1.1 that a load generator needs: prepared requests, and responses with `Content-Length`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::shell::Result;

/// A call that takes longer has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A request that can be sent repeatedly. `body` is JSON unless `content_type` says otherwise.
pub(crate) fn request(method: &str, path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n").into_bytes();
    if !body.is_empty() {
        bytes.extend(format!("content-type: {content_type}\r\ncontent-length: {}\r\n", body.len()).bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

/// The position of a response in a buffer of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResponseBounds {
    pub(crate) status: u16,
    /// Where the body begins.
    pub(crate) body: usize,
    /// Where the next response begins.
    pub(crate) end: usize,
}

/// Looks for a complete response at the start of the buffer. `None`: it is incomplete.
pub(crate) fn parse(buffer: &[u8]) -> Result<Option<ResponseBounds>> {
    let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let status = std::str::from_utf8(buffer.get(9..12).unwrap_or_default()).ok().and_then(|text| text.parse().ok());
    let status: u16 = status.filter(|_| buffer.starts_with(b"HTTP/1.1 ")).ok_or("the response is not HTTP/1.1")?;
    let length = match content_length(&buffer[..head]) {
        Some(length) => length,
        None if status == 204 || status == 304 => 0,
        None => return Err("a response without content-length".into()),
    };
    let body = head + 4;
    let end = body + length;
    Ok((buffer.len() >= end).then_some(ResponseBounds { status, body, end }))
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let start = head.windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME))? + NAME.len();
    let digits = head[start..].iter().skip_while(|byte| **byte == b' ').take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))
}

/// A connection for calls that are not measured, or are measured one at a time.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, CALL_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(CALL_TIMEOUT))?;
        Ok(Client { stream, buffer: Vec::new() })
    }

    /// Sends a prepared request and returns the status and the body.
    pub(crate) fn send(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.stream.write_all(request).map_err(|error| format!("cannot send a request: {error}"))?;
        self.buffer.clear();
        loop {
            if let Some(answer) = parse(&self.buffer)? {
                return Ok((answer.status, self.buffer[answer.body..answer.end].to_vec()));
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => self.buffer.extend(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("no response: {error}")),
            }
        }
    }

    /// A call with a JSON body. Any status but 2xx is an error, which contains the response.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &str) -> Result<serde_json::Value> {
        self.call_with(method, path, "application/json", body.as_bytes())
    }

    pub(crate) fn call_with(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<serde_json::Value> {
        let (status, answer) = self.send(&request(method, path, content_type, body))?;
        if !(200..300).contains(&status) {
            return Err(format!("{method} {path}: {status} {}", String::from_utf8_lossy(&answer)));
        }
        if answer.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_slice(&answer).map_err(|error| format!("{method} {path}: the response is not JSON: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_cut_by_their_length() {
        let one = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(parse(one).unwrap(), Some(ResponseBounds { status: 201, body: one.len() - 2, end: one.len() }));
        for cut in 0..one.len() {
            assert_eq!(parse(&one[..cut]).unwrap(), None, "{cut} bytes");
        }
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap().status, 204);
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert!(parse(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn a_request_says_how_long_its_body_is() {
        let text = String::from_utf8(request("POST", "/x", "application/json", b"{}")).unwrap();
        let expected =
            "POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(text, expected);
    }
}

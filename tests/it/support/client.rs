//! A small HTTP/1.1 client on a plain socket. It sends exactly what a test specifies, valid or not, and returns
//! responses unchanged.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use serde_json::Value;

use super::PATIENCE;
use super::stream::EventStream;

/// A client with one connection, which is opened when needed and reused.
pub(crate) struct Client {
    address: SocketAddr,
    /// The prefix of each path; empty at the root.
    mount_path: &'static str,
    connection: Mutex<Option<BufReader<TcpStream>>>,
}

/// A request under construction.
#[must_use]
pub(crate) struct Request<'a> {
    client: &'a Client,
    head: String,
    body: Option<Vec<u8>>,
}

/// A complete response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, mount_path: &'static str) -> Client {
        Client { address, mount_path: mount_path.trim_end_matches('/'), connection: Mutex::new(None) }
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path).send()
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path).send()
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path).json(body).send()
    }

    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: &Value) -> Response {
        self.request("PUT", path).json(body).send()
    }

    #[track_caller]
    pub(crate) fn patch(&self, path: &str, body: &Value) -> Response {
        self.request("PATCH", path).body("application/merge-patch+json", body.to_string()).send()
    }

    /// Binds JavaScript to a phase of a model.
    #[track_caller]
    pub(crate) fn put_javascript(&self, model: &str, phase: &str, source: &str) -> Response {
        let path = format!("/models/{model}/hooks/{phase}");
        self.request("PUT", &path).body("text/javascript", source).send()
    }

    /// A request to a path below the mount path.
    pub(crate) fn request(&self, method: &str, path: &str) -> Request<'_> {
        self.request_to(method, &format!("{}{path}", self.mount_path))
    }

    /// A request to any target.
    pub(crate) fn request_to(&self, method: &str, target: &str) -> Request<'_> {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.address);
        Request { client: self, head, body: None }
    }

    /// Opens an event stream on a new connection.
    #[track_caller]
    pub(crate) fn stream(&self, path: &str, headers: &[(&str, &str)]) -> EventStream {
        self.try_stream(path, headers).expect("the server listens and answers")
    }

    /// The same for servers that may have ended.
    pub(crate) fn try_stream(&self, path: &str, headers: &[(&str, &str)]) -> io::Result<EventStream> {
        let mut request = self.request("GET", path).header("Accept", "text/event-stream");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut stream = self.connect()?;
        stream.get_mut().write_all(request.wire().as_slice())?;
        EventStream::new(stream)
    }

    /// Sends bytes on a new connection and returns everything received until the server closes it.
    #[track_caller]
    pub(crate) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().expect("the server listens").into_inner();
        // The server may close the connection before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(BufReader::new(stream))
    }

    fn exchange(&self, wire: &[u8], is_head: bool) -> io::Result<Response> {
        let mut kept = self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mut connection) = kept.take() {
            // If the server has closed the idle connection, retry on a new one.
            if let Ok(response) = exchange_on(&mut connection, wire, is_head) {
                if !response.closes() {
                    *kept = Some(connection);
                }
                return Ok(response);
            }
        }
        let mut connection = self.connect()?;
        let response = exchange_on(&mut connection, wire, is_head)?;
        if !response.closes() {
            *kept = Some(connection);
        }
        Ok(response)
    }
}

impl Request<'_> {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// Sets a `Host` other than the address of the connection.
    pub(crate) fn host(mut self, name: &str) -> Self {
        let (start, rest) = self.head.split_once("Host: ").expect("it is the first header");
        let (_, rest) = rest.split_once("\r\n").expect("it ends");
        self.head = format!("{start}Host: {name}\r\n{rest}");
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub(crate) fn body(self, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.header("Content-Type", media_type).untyped(body)
    }

    /// A body without a `Content-Type`.
    pub(crate) fn untyped(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    #[track_caller]
    pub(crate) fn send(self) -> Response {
        self.try_send().expect("an answer")
    }

    /// The same for servers that may be killed in the meantime.
    pub(crate) fn try_send(self) -> io::Result<Response> {
        let is_head = self.head.starts_with("HEAD ");
        self.client.exchange(&self.wire(), is_head)
    }

    fn wire(&self) -> Vec<u8> {
        let mut wire = self.head.clone().into_bytes();
        if let Some(body) = &self.body {
            wire.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(self.body.as_deref().unwrap_or_default());
        wire
    }
}

impl Response {
    /// Fails the test and shows the body unless this is the status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Response {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// Checks that the response is a complete problem document with this status and type, and returns it.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let document = self.json();
        let found = document["type"].as_str().unwrap_or_default();
        assert!(found.ends_with(&format!("/problems/{kind}")), "{document}");
        assert_eq!(document["status"], status, "{document}");
        for member in ["title", "detail", "request_id"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {document}");
        }
        assert_eq!(document["request_id"].as_str(), self.header("x-request-id"), "{document}");
        document
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header that occurs at most once.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "`{name}` stands twice: {:?}", self.headers);
        value
    }

    /// All values of a header, in order.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        let values = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.map(|(_, value)| value.as_str()).collect()
    }

    fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

fn exchange_on(connection: &mut BufReader<TcpStream>, wire: &[u8], is_head: bool) -> io::Result<Response> {
    let written = connection.get_mut().write_all(wire);
    // A server that rejects a body may close the connection before it has read all of it, but still sends a response.
    let response = read_response(connection, is_head);
    match (written, response) {
        (_, Ok(response)) => Ok(response),
        (Err(error), Err(_)) => Err(error),
        (Ok(()), Err(error)) => Err(error),
    }
}

fn read_response(connection: &mut BufReader<TcpStream>, is_head: bool) -> io::Result<Response> {
    loop {
        let (status, headers) = read_head(connection)?;
        // Statuses such as 100 only announce the response.
        if status < 200 {
            continue;
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if !is_head && status != 204 && status != 304 {
            response.body = read_body(connection, &response)?;
        }
        return Ok(response);
    }
}

pub(super) fn read_head(connection: &mut BufReader<TcpStream>) -> io::Result<(u16, Vec<(String, String)>)> {
    let invalid = |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: `{line}`"));
    let first = read_line(connection)?;
    let status =
        first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(|| invalid(&first))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(connection)?;
        if line.is_empty() {
            return Ok((status, headers));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_body(connection: &mut BufReader<TcpStream>, response: &Response) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = response.header("content-length").and_then(|length| length.parse().ok()) {
        body.resize(length, 0);
        connection.read_exact(&mut body)?;
    } else if response.header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(connection)? {
            body.extend_from_slice(&chunk);
        }
    } else {
        connection.read_to_end(&mut body)?;
    }
    Ok(body)
}

/// `None` at the end of the body.
pub(super) fn read_chunk(connection: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let line = read_line(connection)?;
    let length = usize::from_str_radix(line.trim(), 16)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("not a chunk: `{line}`")))?;
    let mut chunk = vec![0; length + 2];
    connection.read_exact(&mut chunk)?;
    chunk.truncate(length);
    Ok((length > 0).then_some(chunk))
}

fn read_line(connection: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

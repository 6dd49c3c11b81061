//! Reads request bodies: with limits of size and time, and only media types that the handler knows.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt as _, Stream, stream};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::body::{Body as _, Frame};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, ORIGIN};
use tokio::time::{sleep, timeout};

use super::peer::{PeerRef, RequestMemory};
use super::problem::{Problem, ProblemType, Result};
use super::query::shorten;
use super::request::Call;
use crate::engine::{self, Error, Line};
use crate::hooks::engines::CODE_BYTES_MAX;
use crate::memory::{Lease, Share, tree_bytes};

/// The body of a request, as handlers get it.
pub(super) type RequestBody = axum::body::Body;

/// How long to wait for a body, or a line of one, and the bytes required for each further second.
const PATIENCE: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND: u32 = 4 * 1024;

/// Smaller bodies are counted when they are complete; they come in one or two pieces.
const COUNTED_LATE_BYTES: usize = 16 * 1024;

/// Initial capacity for a body that does not come in one piece.
const ROOM_BYTES: usize = 64 * 1024;

/// Memory for the short lines of an import, of which there are a few hundred at once.
const SHORT_LINES_BYTES: usize = 2 * 1024 * 1024;
const SHORT_LINE_BYTES: usize = 4 * 1024;
/// Delay before an import asks again for memory that others, or its own earlier lines, use; and the number of attempts.
const MEMORY_PAUSE: Duration = Duration::from_millis(50);
const MEMORY_PAUSES_MAX: u32 = 1200;

/// A client that sends too much gets the response only if its data is read: up to this many bytes, for this long.
const DRAIN_BYTES_MAX: usize = 32 * 1024 * 1024;
const DRAIN_MAX: Duration = Duration::from_secs(2);

pub(super) const JSON: &str = "application/json";
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

/// The media type without its parameters, in lowercase; `None` if it is absent.
pub(super) fn media_type(headers: &HeaderMap) -> Result<Option<String>> {
    let unsupported = |detail: String| Problem::new(ProblemType::UnsupportedMediaType, detail);
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(unsupported("`Content-Encoding` is set, expected a body that is not compressed".to_owned()));
    }
    let Some(value) = headers.get(CONTENT_TYPE) else {
        // A page of another site may send a body without a type, but not with one of ours without a preflight request.
        if headers.contains_key(ORIGIN) {
            return Err(unsupported(
                "`Content-Type` is missing, which is allowed only for clients other than browsers".to_owned(),
            ));
        }
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| unsupported("`Content-Type` is not text".to_owned()))?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    for parameter in parts {
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("charset")
            && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        {
            return Err(unsupported(format!("`Content-Type` has charset `{}`, expected utf-8", shorten(value))));
        }
    }
    Ok(Some(essence))
}

pub(super) fn unsupported(found: &str, expected: &str) -> Problem {
    Problem::new(
        ProblemType::UnsupportedMediaType,
        format!("`Content-Type` is `{}`, expected {expected}", shorten(found)),
    )
}

/// Reads a JSON body, and reserves memory for its data and their tree. A body without a media type counts as JSON.
pub(super) async fn json(call: &Call, body: RequestBody) -> Result<Bytes> {
    match media_type(call.headers())?.as_deref() {
        None | Some(JSON) => {}
        // Other JSON types are accepted, except those for patches.
        Some(other) if other.ends_with("+json") && !other.ends_with("-patch+json") => {}
        Some(other) => return Err(unsupported(other, JSON)),
    }
    document(call, body).await
}

/// The same for exactly one type.
pub(super) async fn json_of_type(call: &Call, body: RequestBody, expected: &str) -> Result<Bytes> {
    match media_type(call.headers())? {
        Some(found) if found == expected => document(call, body).await,
        found => Err(unsupported(found.as_deref().unwrap_or("missing"), expected)),
    }
}

async fn document(call: &Call, body: RequestBody) -> Result<Bytes> {
    read_within(&call.memory, call.headers(), body, call.app.max_body_bytes(), too_large, document_bytes).await
}

/// Memory of a document besides its body: its text and its tree.
fn document_bytes(body: &[u8]) -> usize {
    body.len() + tree_bytes(body)
}

/// Reads a body of at most `max-body` bytes. It counts twice, because the handler makes a copy.
pub(super) async fn read(call: &Call, body: RequestBody) -> Result<Bytes> {
    read_within(&call.memory, call.headers(), body, call.app.max_body_bytes(), too_large, <[u8]>::len).await
}

/// Reads a body of at most `max` bytes that is not parsed here.
pub(super) async fn read_whole(
    memory: &RequestMemory,
    headers: &HeaderMap,
    body: RequestBody,
    max: usize,
) -> Result<Bytes> {
    read_within(memory, headers, body, max, too_large, |_| 0).await
}

/// Reads WebAssembly, which may be larger than any document, because it may contain an interpreter.
pub(super) async fn read_component(call: &Call, body: RequestBody) -> Result<Bytes> {
    let max = CODE_BYTES_MAX.max(call.app.max_body_bytes());
    let too_large = |max| {
        Problem::new(
            ProblemType::TooLarge,
            format!("the component has more than {max} bytes, the most that a hook may have"),
        )
    };
    read_within(&call.memory, call.headers(), body, max, too_large, <[u8]>::len).await
}

/// Rejects a body with a `Content-Length` larger than `max`.
pub(super) async fn refuse_too_large(call: &Call, body: RequestBody, max: usize) -> Problem {
    drain_refused(call.headers(), body).await;
    too_large(max)
}

async fn drain_refused(headers: &HeaderMap, body: RequestBody) {
    // A client that waits for `100 Continue` has sent nothing yet and gets its response immediately.
    if !headers.contains_key(hyper::header::EXPECT) {
        drain(body).await;
    }
}

/// `made_of`: bytes that will be used besides the body.
async fn read_within(
    memory: &RequestMemory,
    headers: &HeaderMap,
    mut body: RequestBody,
    max: usize,
    too_large: impl Fn(usize) -> Problem,
    made_of: impl Fn(&[u8]) -> usize,
) -> Result<Bytes> {
    if body.size_hint().lower() > max as u64 {
        drain_refused(headers, body).await;
        return Err(too_large(max));
    }
    let read = async {
        let mut pace = Pace::default();
        // Small bodies come in one piece, which is passed on unchanged.
        let Some(first) = pace.next(&mut body).await? else { return Ok(Bytes::new()) };
        if first.len() > max {
            return Err(too_large(max));
        }
        let Some(second) = pace.next(&mut body).await? else {
            memory.grow(first.len() + made_of(&first))?;
            return Ok(first);
        };
        let mut whole = BytesMut::with_capacity((first.len() + second.len()).max(ROOM_BYTES.min(max)));
        whole.extend_from_slice(&first);
        let mut more = Some(second);
        let mut counted = 0;
        while let Some(piece) = more {
            if whole.len() + piece.len() > max {
                return Err(too_large(max));
            }
            whole.extend_from_slice(&piece);
            if whole.len() > COUNTED_LATE_BYTES {
                memory.grow(whole.len() - counted)?;
                counted = whole.len();
            }
            more = pace.next(&mut body).await?;
        }
        memory.grow(whole.len() - counted + made_of(&whole))?;
        Ok(whole.freeze())
    };
    let read: Result<Bytes> = read.await;
    if read.is_err() {
        drain(body).await;
    }
    read
}

pub(super) fn too_large(max: usize) -> Problem {
    Problem::new(ProblemType::TooLarge, format!("the body has more than {max} bytes (`server.max-body`)"))
}

/// The lines of a body of any length, without their line ends. Lines of more than `line_bytes_max` bytes are discarded;
/// empty lines are kept, so that lines can be counted, except an empty rest at the end. A line owns its memory until it
/// is written; the next line waits until there is enough.
pub(super) fn lines(
    call: &Call,
    body: RequestBody,
    line_bytes_max: usize,
) -> Result<impl Stream<Item = engine::Result<Line>> + Send> {
    // Not from the connection's share: a single line may take more than that.
    let short_lines = Lease::of(call.engine().memory().whole());
    short_lines.grow(SHORT_LINES_BYTES)?;
    let peer = call.memory.share().clone();
    let splitter = Splitter { line_bytes_max, ..Splitter::default() };
    let state = Lines { body: Some(body), splitter, pace: Pace::default(), peer, _short_lines: short_lines };
    Ok(stream::unfold(state, |mut state| async move {
        loop {
            if let Some(line) = state.splitter.line(state.body.is_none()) {
                state.pace = Pace::default();
                let line = held(&state.peer, line).await;
                return Some((Ok(line), state));
            }
            match state.pace.next(state.body.as_mut()?).await {
                Ok(Some(piece)) => state.splitter.push(&piece),
                Ok(None) => state.body = None,
                Err(problem) => {
                    state.body = None;
                    state.splitter = Splitter::default();
                    return Some((Err(Error::bad_request(problem.detail())), state));
                }
            }
        }
    }))
}

struct Lines {
    body: Option<RequestBody>,
    splitter: Splitter,
    pace: Pace,
    peer: PeerRef,
    _short_lines: Lease<Share>,
}

/// A line and its memory.
struct HeldLine {
    line: Bytes,
    _memory: RequestMemory,
}

impl AsRef<[u8]> for HeldLine {
    fn as_ref(&self) -> &[u8] {
        &self.line
    }
}

/// A line with its memory, once there is enough.
async fn held(peer: &PeerRef, line: Line) -> Line {
    let line = match line {
        Line::Whole(line) if line.len() > SHORT_LINE_BYTES => line,
        line => return line,
    };
    let memory = RequestMemory::of(peer.clone());
    let bytes = line.len() + document_bytes(&line);
    let mut pauses = 0;
    while let Err(shortage) = memory.grow(bytes) {
        if !shortage.can_fit() || pauses == MEMORY_PAUSES_MAX {
            return Line::TooLarge(shortage);
        }
        pauses += 1;
        sleep(MEMORY_PAUSE).await;
    }
    Line::Whole(Bytes::from_owner(HeldLine { line, _memory: memory }))
}
/// How long the server has waited for a client, and the bytes received.
#[derive(Default)]
pub(super) struct Pace {
    waited: Duration,
    bytes: u32,
}

impl Pace {
    /// Whether the client used up its time.
    pub(super) fn is_late(&self) -> bool {
        self.left().is_zero()
    }

    /// The remaining time: a client may be slow, but not without limit.
    fn left(&self) -> Duration {
        let earned = Duration::from_secs(u64::from(self.bytes / BYTES_PER_SECOND));
        // The server never waits longer than that at once, regardless of the bytes received before.
        (PATIENCE + earned).saturating_sub(self.waited).min(PATIENCE)
    }

    /// The next piece of a body; `None` at its end.
    pub(super) async fn next(&mut self, body: &mut RequestBody) -> Result<Option<Bytes>> {
        loop {
            if body.is_end_stream() {
                return Ok(None);
            }
            // Available data needs no timer.
            let frame = match body.frame().now_or_never() {
                Some(frame) => frame,
                None => self.wait(body).await?,
            };
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        self.bytes = self.bytes.saturating_add(u32::try_from(data.len()).unwrap_or(u32::MAX));
                        return Ok(Some(data));
                    }
                    // Trailers end a body.
                    Err(_) => return Ok(None),
                },
                Some(Err(_)) => {
                    let detail = "the body ended before it was whole, or its chunks or frames are malformed";
                    return Err(Problem::bad_request(detail));
                }
            }
        }
    }

    /// Waits for the next data.
    async fn wait(&mut self, body: &mut RequestBody) -> Result<Option<Result<Frame<Bytes>, axum::Error>>> {
        let started = Instant::now();
        let frame = timeout(self.left(), body.frame()).await;
        self.waited += started.elapsed();
        frame.map_err(|_| {
            Problem::bad_request(format!(
                "the body came too slowly: {} bytes in {} s; send at least {} KiB a second, and \
                 no pause of more than {} s",
                self.bytes,
                self.waited.as_secs(),
                BYTES_PER_SECOND / 1024,
                PATIENCE.as_secs()
            ))
        })
    }
}

pub(super) async fn drain(mut body: RequestBody) {
    let drained = timeout(DRAIN_MAX, async {
        let (mut taken, mut pace) = (0, Pace::default());
        while let Ok(Some(piece)) = pace.next(&mut body).await {
            taken += piece.len();
            if taken > DRAIN_BYTES_MAX {
                break;
            }
        }
    });
    // In both cases the connection continues or hyper closes it.
    let _ = drained.await;
}

/// Cuts pieces of any size into lines.
#[derive(Default)]
struct Splitter {
    buffer: BytesMut,
    /// No line ends before this offset.
    searched: usize,
    /// Inside a line that is too long.
    skipping: bool,
    line_bytes_max: usize,
}

impl Splitter {
    fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// A complete line, or one that is too long. With `last` the rest is a line too.
    fn line(&mut self, last: bool) -> Option<Line> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            let line = match found {
                Some(offset) => {
                    let mut line = self.buffer.split_to(self.searched + offset + 1);
                    line.truncate(line.len() - 1);
                    line
                }
                None if self.skipping => {
                    self.buffer.clear();
                    self.searched = 0;
                    return None;
                }
                // One more for a carriage return that may be removed.
                None if self.buffer.len() > self.line_bytes_max + 1 => {
                    self.skipping = true;
                    self.searched = 0;
                    self.buffer.clear();
                    return Some(Line::TooLong(self.line_bytes_max));
                }
                None if last && !self.buffer.is_empty() => self.buffer.split(),
                None => {
                    self.searched = self.buffer.len();
                    return None;
                }
            };
            self.searched = 0;
            if !std::mem::take(&mut self.skipping) {
                return Some(self.trimmed(line));
            }
        }
    }

    fn trimmed(&self, mut line: BytesMut) -> Line {
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        match line.len() > self.line_bytes_max {
            true => Line::TooLong(self.line_bytes_max),
            false => Line::Whole(line.freeze()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn split(pieces: &[&str], max: usize) -> Vec<String> {
        let mut splitter = Splitter { line_bytes_max: max, ..Splitter::default() };
        let mut lines = Vec::new();
        for piece in pieces.iter().map(Some).chain([None]) {
            if let Some(piece) = piece {
                splitter.push(piece.as_bytes());
            }
            while let Some(line) = splitter.line(piece.is_none()) {
                lines.push(match line {
                    Line::Whole(line) => String::from_utf8(line.to_vec()).expect("text"),
                    Line::TooLong(max) => format!("more than {max}"),
                    Line::TooLarge(shortage) => panic!("{shortage}"),
                });
            }
        }
        lines
    }

    #[test]
    fn splits_lines_across_pieces() {
        assert_eq!(split(&["a\nb", "c\r\n\n", "d"], 10), ["a", "bc", "", "d"]);
        assert_eq!(split(&["a\n"], 10), ["a"]);
        assert_eq!(split(&[], 10), [""; 0]);
        assert_eq!(split(&["a\r", "\nb\r"], 10), ["a", "b"]);
    }

    #[test]
    fn long_lines_are_passed_over() {
        assert_eq!(split(&["123", "\n12345\n1234\n"], 4), ["123", "more than 4", "1234"]);
        assert_eq!(split(&["1234567", "89", "0\nab\n", "cdefghi"], 4), ["more than 4", "ab", "more than 4"]);
        assert_eq!(split(&["1234\r\n12345678901\r\n5"], 4), ["1234", "more than 4", "5"]);
    }

    #[test]
    fn media_types() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            media_type(&headers)
        };
        assert_eq!(of("Application/JSON ; charset=\"UTF-8\"").expect("known").as_deref(), Some("application/json"));
        assert_eq!(media_type(&HeaderMap::new()).expect("absent"), None);
        assert!(of("application/json; charset=latin1").is_err());
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_static("http://example.com"));
        assert!(media_type(&headers).is_err());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(media_type(&headers).is_err());
    }
}

//! HTTP/2 as bytes (RFC 9113), for requests that no library would send.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use crate::support::PATIENCE;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) struct Frame(Vec<u8>);

impl Frame {
    fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Frame {
        let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        Frame(bytes)
    }

    pub(super) fn data(stream: u32, bytes: &[u8]) -> Frame {
        Frame::new(0, 0, stream, bytes)
    }

    pub(super) fn headers(stream: u32, flags: u8, block: &[u8]) -> Frame {
        Frame::new(1, flags, stream, block)
    }

    /// A complete GET.
    pub(super) fn request(stream: u32, path: &str) -> Frame {
        Frame::headers(stream, END_STREAM | END_HEADERS, &request_block(path))
    }

    /// A POST whose body is still to come.
    pub(super) fn open_post(stream: u32, path: &str) -> Frame {
        Frame::headers(stream, END_HEADERS, &post_block(path))
    }

    /// A complete POST whose response waits for its post hooks.
    pub(super) fn waiting_post(stream: u32, path: &str, body: &[u8]) -> Frame {
        let block = [post_block(path), literal("prefer", "wait=100")].concat();
        let (head, body) = (Frame::headers(stream, END_HEADERS, &block), Frame::new(0, END_STREAM, stream, body));
        Frame([head.0, body.0].concat())
    }

    pub(super) fn priority(stream: u32) -> Frame {
        Frame::new(2, 0, stream, &[0, 0, 0, 0, 16])
    }

    pub(super) fn reset(stream: u32) -> Frame {
        // CANCEL
        Frame::new(3, 0, stream, &8_u32.to_be_bytes())
    }

    /// SETTINGS with the default maximum frame size.
    pub(super) fn settings() -> Frame {
        Frame::new(4, 0, 0, &[0, 5, 0, 0, 0x40, 0])
    }

    pub(super) fn ping() -> Frame {
        Frame::new(6, 0, 0, &[7; 8])
    }

    pub(super) fn window_update(stream: u32, by: u32) -> Frame {
        Frame::new(8, 0, stream, &by.to_be_bytes())
    }

    pub(super) fn continuation(stream: u32, block: &[u8]) -> Frame {
        Frame::new(9, 0, stream, block)
    }
}

/// A header in HPACK (RFC 7541), literal without indexing.
pub(super) fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // An integer with a 7-bit prefix.
        match text.len() {
            length @ 0..127 => bytes.push(length as u8),
            length => {
                bytes.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    bytes.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                bytes.push(rest as u8);
            }
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// `:method` GET, `:scheme` http, `:path` and `:authority`.
pub(super) fn request_block(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    block.extend(literal(":path", path));
    block.extend(literal(":authority", "localhost"));
    block
}

fn post_block(path: &str) -> Vec<u8> {
    let mut block = request_block(path);
    // `:method` POST, the third entry of the static table, instead of GET.
    block[0] = 0x83;
    block.extend(literal("content-type", "application/json"));
    block
}

/// A connection whose responses are read and discarded.
pub(super) struct Wire {
    stream: TcpStream,
    reader: Option<JoinHandle<()>>,
    is_broken: bool,
}

impl Wire {
    pub(super) fn connect(to: SocketAddr) -> Wire {
        let mut stream = TcpStream::connect(to).expect("the server listens");
        stream.set_write_timeout(Some(PATIENCE)).expect("a deadline");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the preface");
        stream.write_all(&Frame::new(4, 0, 0, &[]).0).expect("settings");
        let mut responses = stream.try_clone().expect("the same connection");
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while matches!(responses.read(&mut buffer), Ok(1..)) {}
        });
        Wire { stream, reader: Some(reader), is_broken: false }
    }

    /// Does nothing if the connection has ended.
    pub(super) fn send(&mut self, frame: &Frame) {
        if self.is_broken {
            return;
        }
        if let Err(error) = self.stream.write_all(&frame.0) {
            let is_late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!is_late, "the server neither reads nor ends the connection");
            self.is_broken = true;
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.is_broken || self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    #[track_caller]
    pub(super) fn wait_for_its_end(&mut self, why: &str) {
        crate::support::eventually(why, || self.has_ended().then_some(()));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // An error means that the connection has ended.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
    }
}

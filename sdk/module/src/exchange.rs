//! A request and its response inside a hook, and the output of filters.

use std::marker::PhantomData;

use snaphook_module_abi as abi;

use crate::host::{Host, Resume};
use crate::views::{headers, view};

/// The request or the response. For connection filters: towards the server, or towards the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

impl Side {
    fn code(self) -> u32 {
        match self {
            Side::Request => abi::REQUEST,
            Side::Response => abi::RESPONSE,
        }
    }
}

/// A text of the request or the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    Method,
    /// Path and query.
    Uri,
    Protocol,
    Host,
    /// Address and port of the peer.
    Peer,
    /// The reason phrase of an HTTP/1 response, if it is not the usual one.
    Reason,
}

impl Text {
    fn code(self) -> u32 {
        match self {
            Text::Method => abi::METHOD,
            Text::Uri => abi::URI,
            Text::Protocol => abi::PROTOCOL,
            Text::Host => abi::HOST,
            Text::Peer => abi::PEER,
            Text::Reason => abi::REASON,
        }
    }
}

/// One request and its response, inside a hook. Functions that change a value return `false` if the new value is
/// invalid.
pub struct Exchange<'a> {
    raw: *mut abi::Exchange,
    host: Host,
    hook: PhantomData<&'a mut abi::Exchange>,
}

impl Exchange<'_> {
    pub(crate) fn new(raw: *mut abi::Exchange, host: Host) -> Self {
        Exchange { raw, host, hook: PhantomData }
    }

    /// Empty if the text is not UTF-8.
    pub fn text(&self, what: Text) -> &str {
        view(self, (self.host.0.text)(self.raw, what.code())).map_or("", |text| std::str::from_utf8(text).unwrap_or(""))
    }

    /// Changes the method, the URI, or the reason.
    pub fn set_text(&mut self, what: Text, value: &str) -> bool {
        (self.host.0.set_text)(self.raw, what.code(), bytes(value.as_bytes())) == abi::OK
    }

    pub fn is_secure(&self) -> bool {
        (self.host.0.is_secure)(self.raw) == 1
    }

    /// The first value of a header.
    pub fn header(&self, of: Side, name: &str) -> Option<&[u8]> {
        view(self, (self.host.0.header)(self.raw, of.code(), bytes(name.as_bytes())))
    }

    /// All headers, in their order.
    pub fn headers(&self, of: Side) -> Vec<(&[u8], &[u8])> {
        headers(self, |buffer, capacity| (self.host.0.headers)(self.raw, of.code(), buffer, capacity))
    }

    /// Replaces all values of a header.
    pub fn set_header(&mut self, of: Side, name: &str, value: impl AsRef<[u8]>) -> bool {
        (self.host.0.set_header)(self.raw, of.code(), bytes(name.as_bytes()), bytes(value.as_ref())) == abi::OK
    }

    /// Adds a value to a header.
    pub fn add_header(&mut self, of: Side, name: &str, value: impl AsRef<[u8]>) -> bool {
        (self.host.0.add_header)(self.raw, of.code(), bytes(name.as_bytes()), bytes(value.as_ref())) == abi::OK
    }

    pub fn remove_header(&mut self, of: Side, name: &str) -> bool {
        (self.host.0.remove_header)(self.raw, of.code(), bytes(name.as_bytes())) == abi::OK
    }

    /// The status of the response, if there is one.
    pub fn status(&self) -> Option<u16> {
        u16::try_from((self.host.0.status)(self.raw)).ok().filter(|status| *status != 0)
    }

    pub fn set_status(&mut self, status: u16) -> bool {
        (self.host.0.set_status)(self.raw, status.into()) == abi::OK
    }

    /// A body, if the module has the flag for complete bodies or a module set the body.
    pub fn body(&self, of: Side) -> Option<&[u8]> {
        view(self, (self.host.0.body)(self.raw, of.code()))
    }

    pub fn set_body(&mut self, of: Side, body: impl AsRef<[u8]>) -> bool {
        (self.host.0.set_body)(self.raw, of.code(), bytes(body.as_ref())) == abi::OK
    }

    /// From now on, the handler's `request_body` or `response_body` gets this body.
    pub fn filter_body(&mut self, of: Side) -> bool {
        (self.host.0.filter_body)(self.raw, of.code()) == abi::OK
    }

    /// For a hook that returns [`crate::Answer::Pending`].
    pub fn resume(&mut self) -> Resume {
        Resume { host: self.host, token: (self.host.0.token)(self.raw) }
    }
}

/// Where a filter writes.
pub struct Output<'a> {
    raw: *mut abi::Output,
    host: Host,
    hook: PhantomData<&'a mut abi::Output>,
}

impl Output<'_> {
    pub(crate) fn new(raw: *mut abi::Output, host: Host) -> Self {
        Output { raw, host, hook: PhantomData }
    }

    /// Body filters write to their own side, connection filters to either. `false`: the wrong side, or too many bytes.
    pub fn write(&mut self, to: Side, data: &[u8]) -> bool {
        (self.host.0.write)(self.raw, to.code(), bytes(data)) == abi::OK
    }
}

fn bytes(bytes: &[u8]) -> abi::Bytes {
    abi::Bytes { ptr: bytes.as_ptr(), len: bytes.len() }
}

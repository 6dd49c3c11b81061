//! Calls modules through their descriptor, as a server does.
#![expect(unsafe_code, reason = "takes the place of the server")]

use std::ptr::{null, null_mut};
use std::sync::Mutex;

use super::*;
use crate::{Answer, ConnectionHandler, Filtered, Flags, RequestHandler, Side, Text};

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The server's side of an exchange; only responses, because requests cross the boundary in the same way.
#[derive(Default)]
struct Served {
    headers: Vec<(String, Vec<u8>)>,
    status: u32,
    body: Option<Vec<u8>>,
}

fn served<'a>(exchange: *mut abi::Exchange) -> &'a mut Served {
    // SAFETY: the test passes a `Served` that outlives the hook.
    unsafe { &mut *exchange.cast::<Served>() }
}

fn given(bytes: abi::Bytes) -> Vec<u8> {
    view(&bytes, bytes).unwrap_or_default().to_vec()
}

fn lent(bytes: &[u8]) -> abi::Bytes {
    abi::Bytes { ptr: bytes.as_ptr(), len: bytes.len() }
}

fn name_of(name: abi::Bytes) -> String {
    String::from_utf8(given(name)).unwrap()
}

extern "C" fn log(module: u64, level: u32, message: abi::Text) {
    LOG.lock().unwrap().push(format!("{module} {level} {}", text(message)));
}
extern "C" fn token(_: *mut abi::Exchange) -> u64 {
    77
}
extern "C" fn resume(token: u64) {
    LOG.lock().unwrap().push(format!("resumed {token}"));
}
extern "C" fn text_of(_: *mut abi::Exchange, what: u32) -> abi::Bytes {
    lent([&b"GET"[..], b"/a?b", b"HTTP/1.1", b"\xff", b"127.0.0.1:9"][what as usize])
}
extern "C" fn set_text(_: *mut abi::Exchange, what: u32, _: abi::Bytes) -> u32 {
    if what <= abi::URI { abi::OK } else { abi::FAILED }
}
extern "C" fn is_secure(_: *mut abi::Exchange) -> u32 {
    1
}
extern "C" fn header(exchange: *mut abi::Exchange, _: u32, name: abi::Bytes) -> abi::Bytes {
    let name = name_of(name);
    let found = served(exchange).headers.iter().find(|(found, _)| *found == name);
    found.map_or(abi::Bytes { ptr: null(), len: 0 }, |(_, value)| lent(value))
}
extern "C" fn all_headers(exchange: *mut abi::Exchange, _: u32, to: *mut abi::Header, capacity: usize) -> usize {
    let headers = &served(exchange).headers;
    for (index, (name, value)) in headers.iter().enumerate().take(capacity) {
        // SAFETY: the module provides space for `capacity` headers.
        unsafe { to.add(index).write(abi::Header { name: lent(name.as_bytes()), value: lent(value) }) };
    }
    headers.len()
}
extern "C" fn set_header(exchange: *mut abi::Exchange, of: u32, name: abi::Bytes, value: abi::Bytes) -> u32 {
    remove_header(exchange, of, name);
    add_header(exchange, of, name, value)
}
extern "C" fn add_header(exchange: *mut abi::Exchange, _: u32, name: abi::Bytes, value: abi::Bytes) -> u32 {
    let name = name_of(name);
    if name.contains(' ') {
        return abi::FAILED;
    }
    served(exchange).headers.push((name, given(value)));
    abi::OK
}
extern "C" fn remove_header(exchange: *mut abi::Exchange, _: u32, name: abi::Bytes) -> u32 {
    let name = name_of(name);
    served(exchange).headers.retain(|(found, _)| *found != name);
    abi::OK
}
extern "C" fn status(exchange: *mut abi::Exchange) -> u32 {
    served(exchange).status
}
extern "C" fn set_status(exchange: *mut abi::Exchange, status: u32) -> u32 {
    served(exchange).status = status;
    abi::OK
}
extern "C" fn body(exchange: *mut abi::Exchange, _: u32) -> abi::Bytes {
    served(exchange).body.as_deref().map_or(abi::Bytes { ptr: null(), len: 0 }, lent)
}
extern "C" fn set_body(exchange: *mut abi::Exchange, _: u32, bytes: abi::Bytes) -> u32 {
    served(exchange).body = Some(given(bytes));
    abi::OK
}
extern "C" fn filter_body(_: *mut abi::Exchange, _: u32) -> u32 {
    abi::OK
}
extern "C" fn write(output: *mut abi::Output, to: u32, bytes: abi::Bytes) -> u32 {
    // SAFETY: the test passes a list of this type that outlives the hook.
    unsafe { &mut *output.cast::<Vec<(u32, Vec<u8>)>>() }.push((to, given(bytes)));
    abi::OK
}

static HOST: abi::Host = abi::Host {
    abi_version: abi::ABI_VERSION,
    struct_size: size_of::<abi::Host>() as u32,
    module: 5,
    log,
    token,
    resume,
    text: text_of,
    set_text,
    is_secure,
    header,
    headers: all_headers,
    set_header,
    add_header,
    remove_header,
    status,
    set_status,
    body,
    set_body,
    filter_body,
    write,
};

struct Tried {
    greeting: String,
}

impl Module for Tried {
    type Connection = Upper;
    type Request = TriedRequest;
    const HOOKS: Hooks = Hooks::CONNECTION_READ
        .and(Hooks::BEFORE_REQUEST)
        .and(Hooks::REQUEST)
        .and(Hooks::REQUEST_ERROR)
        .and(Hooks::RESPONSE_BODY);
    const FLAGS: Flags = Flags { blocking: true, ..Flags::NONE };

    fn activate(_: Host, config: &Config<'_>) -> Result<Self, String> {
        let greeting = config.get("greeting").ok_or("`greeting` is missing")?;
        Ok(Tried { greeting: greeting.to_owned() })
    }

    fn config_change(&self, config: &Config<'_>) -> Result<(), String> {
        if config.get("greeting") == Some(&self.greeting) { Ok(()) } else { panic!("another greeting") }
    }

    fn connection(&self, info: &ConnectionInfo<'_>) -> Option<Upper> {
        (info.peer == "127.0.0.1:9").then_some(Upper)
    }

    fn request(&self, connection: Option<&Upper>, _: &mut Exchange<'_>) -> TriedRequest {
        TriedRequest { greeting: self.greeting.clone(), waited: false, has_connection: connection.is_some() }
    }
}

struct Upper;

impl ConnectionHandler for Upper {
    fn read(&self, bytes: &[u8], is_last: bool, output: &mut Output<'_>) -> Filtered {
        if bytes.is_empty() && is_last {
            return Filtered::Unchanged;
        }
        output.write(Side::Request, &bytes.to_ascii_uppercase());
        Filtered::Replaced
    }
}

struct TriedRequest {
    greeting: String,
    waited: bool,
    has_connection: bool,
}

impl Drop for TriedRequest {
    fn drop(&mut self) {
        LOG.lock().unwrap().push(format!("dropped {}", self.greeting));
    }
}

impl RequestHandler for TriedRequest {
    fn before_request(&mut self, exchange: &mut Exchange<'_>) -> Answer {
        if !std::mem::replace(&mut self.waited, true) {
            exchange.resume().resume();
            return Answer::Pending;
        }
        assert!(self.has_connection, "no connection");
        assert_eq!((exchange.text(Text::Uri), exchange.text(Text::Host)), ("/a?b", ""));
        assert!(exchange.set_text(Text::Method, "PUT") && !exchange.set_text(Text::Peer, "x") && exchange.is_secure());
        Answer::Status(401)
    }

    fn request(&mut self, exchange: &mut Exchange<'_>) -> Answer {
        assert_eq!((exchange.status(), exchange.body(Side::Response)), (None, None));
        assert!(exchange.headers(Side::Response).is_empty());
        assert!(exchange.add_header(Side::Response, "a", "1") && exchange.add_header(Side::Response, "a", b"\xff"));
        assert!(!exchange.add_header(Side::Response, "a b", "1"));
        assert_eq!(exchange.headers(Side::Response), [(&b"a"[..], &b"1"[..]), (b"a", b"\xff")]);
        assert!(exchange.set_header(Side::Response, "a", "") && exchange.header(Side::Response, "a") == Some(b""));
        assert!(exchange.remove_header(Side::Response, "a") && exchange.header(Side::Response, "a").is_none());
        assert!(exchange.set_status(201) && exchange.set_body(Side::Response, &self.greeting));
        assert_eq!((exchange.status(), exchange.body(Side::Response)), (Some(201), Some(self.greeting.as_bytes())));
        Answer::Ok
    }

    fn request_error(&mut self, _: &mut Exchange<'_>, status: u16) -> Answer {
        match status {
            500 => panic!("at {status}"),
            // Smaller than any status.
            _ => Answer::Status(3),
        }
    }

    fn response_body(&mut self, bytes: &[u8], is_last: bool, output: &mut Output<'_>) -> Filtered {
        assert!(is_last, "one piece only");
        output.write(Side::Response, &[bytes, b"!"].concat());
        Filtered::Replaced
    }
}

fn activated(descriptor: &RawDescriptor, settings: &[(&str, &str)]) -> (*mut c_void, u32) {
    let module = descriptor.factory.unwrap()(&HOST);
    (module, with_config(settings, |config| descriptor.activate.unwrap()(module, config)))
}

fn with_config(settings: &[(&str, &str)], call: impl FnOnce(*const abi::Config) -> u32) -> u32 {
    let text = |text: &str| abi::Text { ptr: text.as_ptr().cast(), len: text.len() };
    let settings: Vec<_> =
        settings.iter().map(|(key, value)| abi::Setting { key: text(key), value: text(value) }).collect();
    call(&abi::Config {
        struct_size: size_of::<abi::Config>() as u32,
        api_version: 1,
        server_name: text("Snaphook"),
        server_version: text("0"),
        platform: text("linux"),
        module_name: text("tried"),
        json: text("{}"),
        settings: settings.as_ptr(),
        settings_len: settings.len(),
    })
}

/// One test only, because the log is shared.
#[test]
fn a_module_through_its_descriptor() {
    let it = descriptor::<Tried>("tried", "1");
    assert_eq!((it.abi_version, it.flags), (abi::ABI_VERSION, abi::BLOCKING));
    assert!(it.response.is_none() && it.connection_write.is_none() && it.connection_start.is_none());

    let (failed, code) = activated(&it, &[]);
    assert_eq!(code, abi::FAILED);
    assert!(it.request_open.unwrap()(failed, null_mut(), null_mut()).is_null(), "it is not active");
    assert_eq!(it.before_request.unwrap()(null_mut(), null_mut()), abi::FAILED);
    it.recycler.unwrap()(failed);

    let (module, code) = activated(&it, &[("greeting", "hello")]);
    assert_eq!(code, abi::OK);
    let change = |greeting| with_config(&[("greeting", greeting)], |config| it.config_change.unwrap()(module, config));
    assert_eq!((change("hello"), change("other")), (abi::OK, abi::FAILED));

    let peer = |peer: &str| {
        let text = abi::Text { ptr: peer.as_ptr().cast(), len: peer.len() };
        it.connection_open.unwrap()(module, &abi::ConnectionInfo { struct_size: 24, is_secure: 1, peer: text })
    };
    assert!(peer("other").is_null());
    let connection = peer("127.0.0.1:9");
    let mut written: Vec<(u32, Vec<u8>)> = Vec::new();
    let output: *mut abi::Output = (&raw mut written).cast();
    let read = |bytes, last| it.connection_read.unwrap()(connection, lent(bytes), last, output);
    assert_eq!((read(b"get", 0), read(b"", 1)), (abi::OK, abi::DECLINED));
    assert_eq!(it.connection_read.unwrap()(null_mut(), lent(b"x"), 0, output), abi::DECLINED);

    let mut exchange = Served::default();
    let raw: *mut abi::Exchange = (&raw mut exchange).cast();
    let request = it.request_open.unwrap()(module, connection, raw);
    let before = it.before_request.unwrap();
    assert_eq!((before(request, raw), before(request, raw)), (abi::PENDING, 401));
    assert_eq!(it.request.unwrap()(request, raw), abi::OK);
    let error = it.request_error.unwrap();
    assert_eq!((error(request, raw, 500), error(request, raw, 404)), (abi::FAILED, abi::FAILED));
    assert_eq!(it.response_body.unwrap()(request, lent(b"end"), 1, output), abi::OK);
    assert_eq!(it.response_body.unwrap()(request, lent(b"end"), 0, output), abi::FAILED);
    it.request_close.unwrap()(request);
    it.connection_close.unwrap()(connection);
    it.deactivate.unwrap()(module);
    it.recycler.unwrap()(module);

    assert_eq!(written, [(abi::REQUEST, b"GET".to_vec()), (abi::RESPONSE, b"end!".to_vec())]);
    assert_eq!((exchange.status, exchange.body.as_deref()), (201, Some(&b"hello"[..])));
    assert_eq!(
        *LOG.lock().unwrap(),
        [
            "5 1 `greeting` is missing",
            "5 1 the module panicked: another greeting",
            "resumed 77",
            "5 1 the module panicked: at 500",
            "5 1 the module panicked: one piece only",
            "dropped hello",
        ]
    );
}

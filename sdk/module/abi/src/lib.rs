//! The C ABI between the server and modules, which take part in how requests are served: plain data and function types, no
//! logic.
//!
//! `sdk/c/snaphook_module.h` is generated from this file (`SNAPHOOK_BLESS=1 cargo test -p snaphook-module-abi`), so the
//! comments on public items are the header's comments too. Structs grow only at their end.

// Only public items are in the header. Its generator renames them, and comments use the C names, which rustdoc cannot resolve.
#![allow(rustdoc::broken_intra_doc_links)]

use core::ffi::{c_char, c_void};

/// The version of this interface. A library and a server must have the same.
pub const ABI_VERSION: u32 = 1;

/// The function that a library exports: `const snaphook_module *snaphook_module_v1(void)`.
pub const SYMBOL: &str = "snaphook_module_v1";

/// Flag of a module: its hooks may block, so the server runs them on separate threads for the module.
pub const BLOCKING: u32 = 1;
/// Flag of a module: the server reads the whole request body, up to `max-body`, before `before_request` and `request`.
pub const REQUEST_WHOLE: u32 = 2;
/// Flag of a module: the server collects the whole response body, up to `max-body`, before `response`; a larger one becomes an
/// error. A stream of events, which never ends, and the response to HEAD are not collected.
pub const RESPONSE_WHOLE: u32 = 4;

/// Result of a hook: it declined, the next module is called.
pub const DECLINED: u32 = 0;
/// Result of a hook: handled; no later module is called for this hook. Also the result of functions that succeeded.
pub const OK: u32 = 1;
/// Result of a request hook that has called `host->token`: it waits. The module calls `host->resume` when it can continue, and
/// the server then calls the same hook again. The time limit applies to all waits of a hook together; beyond it the request
/// ends with status 504.
pub const PENDING: u32 = 2;
/// Result of a hook: it failed, for instance with an exception. The request ends with status 500, and the server counts the
/// failure. Also the result of functions that reject a value or a handle.
pub const FAILED: u32 = 3;
/// Result of a request hook: from here to 599, the HTTP status of an error. No later module is called for this hook. The server
/// creates the response to the error and calls `request_error`, at most once per request.
pub const STATUS_MIN: u32 = 400;

/// Side of an exchange: the request, or bytes on the way to the server.
pub const REQUEST: u32 = 0;
/// Side of an exchange: the response, or bytes on the way to the peer.
pub const RESPONSE: u32 = 1;

/// Text of a request: its method.
pub const METHOD: u32 = 0;
/// Text of a request: path and query.
pub const URI: u32 = 1;
/// Text of a request: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`. It cannot be changed.
pub const PROTOCOL: u32 = 2;
/// Text of a request: the requested host, with the port if the request has one; empty if it names no host. It cannot be
/// changed.
pub const HOST: u32 = 3;
/// Text of a request: address and port of the peer, or `unix`. It cannot be changed.
pub const PEER: u32 = 4;
/// Text of a response: the reason after the status in HTTP/1. Null if there is no response, or if its reason is the standard
/// one.
pub const REASON: u32 = 5;

/// Levels of `host->log`.
pub const LOG_ERROR: u32 = 1;
pub const LOG_WARN: u32 = 2;
pub const LOG_INFO: u32 = 3;
pub const LOG_DEBUG: u32 = 4;

/// Text in UTF-8, not terminated by a zero byte. `ptr` may be null if `len` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    pub ptr: *const c_char,
    pub len: usize,
}

/// Bytes. `ptr` may be null if `len` is 0; for optional values, null means absent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    pub ptr: *const u8,
    pub len: usize,
}

/// A header line. Names are in lowercase; values are bytes, mostly ASCII.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub name: Bytes,
    pub value: Bytes,
}

/// A setting of the module's own `config` table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `path`, `limits.burst` for a member of a table, or `names.0` for an item of a list.
    pub key: Text,
    /// Text as it is; numbers, `true` and `false` as in JSON.
    pub value: Text,
}

/// The configuration of a module, passed at activation and at each reload. Valid until the function returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// `sizeof(snaphook_module_config)` of the server.
    pub struct_size: u32,
    /// Version of the REST API.
    pub api_version: u32,
    /// The server's name, such as `Snaphook`.
    pub server_name: Text,
    pub server_version: Text,
    /// Such as `linux-x86_64`.
    pub platform: Text,
    /// The module's name in `[[server.modules]]`.
    pub module_name: Text,
    /// The module's `config` table as JSON.
    pub json: Text,
    /// The values of the same table, one by one.
    pub settings: *const Setting,
    pub settings_len: usize,
}

/// A connection. Valid until the function returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ConnectionInfo {
    /// `sizeof(snaphook_module_connection_info)` of the server.
    pub struct_size: u32,
    /// 1 if the connection is encrypted.
    pub is_secure: u32,
    /// Address and port of the peer, or `unix`.
    pub peer: Text,
}

/// One request and its response, inside a hook. The handle is valid until the hook returns, on the thread that runs the
/// hook, and so are the texts and bytes that the host's functions return for it.
#[repr(C)]
#[derive(Debug)]
pub struct Exchange {
    _opaque: [u8; 0],
}

/// Where a filter writes. Valid until the function returns, on the thread that runs it.
#[repr(C)]
#[derive(Debug)]
pub struct Output {
    _opaque: [u8; 0],
}

/// The server's functions. The table is valid until the process ends. Arguments need to be valid only until the function
/// returns. Functions that change something return `OK`, or `FAILED` if the value or the handle is invalid, the current hook
/// may not change it, or a limit is reached. The others return null or 0 for an invalid handle.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// `SNAPHOOK_MODULE_ABI_VERSION` of the server
    pub abi_version: u32,
    /// `sizeof(snaphook_module_host)` of the server
    pub struct_size: u32,
    /// Identifies the module in `log`.
    pub module: u64,
    /// Writes a line to the server's log, from any thread. A line is truncated to 8 KiB.
    pub log: extern "C" fn(module: u64, level: u32, message: Text),
    /// Returns a number for `resume`, for a hook that will return `PENDING`. Calls within one hook return the same number.
    pub token: extern "C" fn(exchange: *mut Exchange) -> u64,
    /// Makes the server call the hook that returned `PENDING` again. May be called from any thread, also before that hook returns.
    /// A token works once, and has no effect if its hook no longer waits.
    pub resume: extern "C" fn(token: u64),
    /// A text of the request or the response: `SNAPHOOK_MODULE_METHOD` and so on.
    pub text: extern "C" fn(exchange: *mut Exchange, what: u32) -> Bytes,
    /// Changes a text: of the request in `before_request`, of the response in `request`, `request_error` and `response`. A method
    /// has at most 64 bytes and is not `CONNECT`; path and query begin with `/` and have at most 64 KiB; a reason has at most 512
    /// bytes.
    pub set_text: extern "C" fn(exchange: *mut Exchange, what: u32, value: Bytes) -> u32,
    /// 1 if the request came over an encrypted connection.
    pub is_secure: extern "C" fn(exchange: *mut Exchange) -> u32,
    /// The first value of a header, or null. `of` is `SNAPHOOK_MODULE_REQUEST` or `…_RESPONSE`.
    pub header: extern "C" fn(exchange: *mut Exchange, of: u32, name: Bytes) -> Bytes,
    /// Writes up to `capacity` headers and returns how many headers there are. `headers` may be null.
    pub headers: extern "C" fn(exchange: *mut Exchange, of: u32, headers: *mut Header, capacity: usize) -> usize,
    /// Replaces all values of a header, on the side that `set_text` may change. There may be 256 headers; a name and a value have at
    /// most 64 KiB. Fails for headers that frame a message, such as `content-length`: only the server sets them.
    pub set_header: extern "C" fn(exchange: *mut Exchange, of: u32, name: Bytes, value: Bytes) -> u32,
    /// Adds a value to a header; the rules of `set_header` apply.
    pub add_header: extern "C" fn(exchange: *mut Exchange, of: u32, name: Bytes, value: Bytes) -> u32,
    /// Removes all values of a header; the rules of `set_header` apply.
    pub remove_header: extern "C" fn(exchange: *mut Exchange, of: u32, name: Bytes) -> u32,
    /// The status of the response; 0 if there is none yet.
    pub status: extern "C" fn(exchange: *mut Exchange) -> u32,
    /// Sets the status, 200 to 599. Without this call, a response that `request` creates has status 200.
    pub set_status: extern "C" fn(exchange: *mut Exchange, status: u32) -> u32,
    /// A body that is in memory, because a module has the flag for whole bodies or has set it; otherwise null. The body of a request
    /// is empty once the server has handled the request.
    pub body: extern "C" fn(exchange: *mut Exchange, of: u32) -> Bytes,
    /// Replaces a body, on the side that `set_text` may change, with one of at most `max-body` bytes. The server sets
    /// `content-length`. Also fails if the server's memory for requests is used up.
    pub set_body: extern "C" fn(exchange: *mut Exchange, of: u32, body: Bytes) -> u32,
    /// From now on the module's `request_body` or `response_body` gets this body. Call it in `before_request` for the request
    /// body, in `response` for the response body. The server removes `content-length`.
    pub filter_body: extern "C" fn(exchange: *mut Exchange, of: u32) -> u32,
    /// Writes output of a filter, at most 16 MiB in total each time the filter is called. Body filters write to their own side,
    /// `SNAPHOOK_MODULE_REQUEST` or `…_RESPONSE`; filters of a connection to either: towards the server, or towards the peer. If
    /// the server's memory for requests is used up, this fails, and so does the filter.
    pub write: extern "C" fn(output: *mut Output, to: u32, bytes: Bytes) -> u32,
}

/// The descriptor of a module. Everything that it points to must not change until the process ends: libraries are not unloaded.
///
/// A null function, or one beyond a smaller `struct_size`, is a hook that the module does not have. `factory` and
/// `recycler` are required. No function may throw an exception.
///
/// Hooks may be called from any thread, and those of several exchanges concurrently. Hooks of one exchange never overlap;
/// neither do those of one connection, but `request_open` and the hooks of its requests may run at the same time. Without the
/// flag `BLOCKING`, a hook may take only microseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// `SNAPHOOK_MODULE_ABI_VERSION`
    pub abi_version: u32,
    /// `sizeof(snaphook_module)`
    pub struct_size: u32,
    /// 1 to 200 bytes.
    pub name: Text,
    /// 1 to 200 bytes.
    pub version: Text,
    /// `SNAPHOOK_MODULE_BLOCKING` and so on. A server rejects a module with an unknown flag.
    pub flags: u32,
    /// Always 0.
    pub reserved: u32,
    /// Creates the module; null on failure.
    pub factory: Option<extern "C-unwind" fn(host: *const Host) -> *mut c_void>,
    /// Destroys the module, after its last request and connection have ended.
    pub recycler: Option<extern "C-unwind" fn(module: *mut c_void)>,
    /// Returns `OK`, or `FAILED` if the module cannot be used; log the reason. The server then does not start, or continues without
    /// the module if it is optional; after a reload, it keeps the previous modules.
    pub activate: Option<extern "C-unwind" fn(module: *mut c_void, config: *const Config) -> u32>,
    /// Called before `recycler` if the module was active.
    pub deactivate: Option<extern "C-unwind" fn(module: *mut c_void)>,
    /// Called after `activate`, where `FAILED` has the same effect as in `activate`, and after each reload of the configuration, also
    /// while requests run; then `FAILED` means that the module keeps its old configuration.
    pub config_change: Option<extern "C-unwind" fn(module: *mut c_void, config: *const Config) -> u32>,
    /// Creates the state of a connection; its hooks get the result, even if it is null. Without this function they get `module`.
    pub connection_open: Option<extern "C-unwind" fn(module: *mut c_void, info: *const ConnectionInfo) -> *mut c_void>,
    /// Destroys the state of a connection, after the states of its requests.
    pub connection_close: Option<extern "C-unwind" fn(connection: *mut c_void)>,
    /// The connection begins. Connection hooks return `OK`, `DECLINED` or `FAILED`; `FAILED` ends the connection.
    pub connection_start: Option<extern "C-unwind" fn(connection: *mut c_void, output: *mut Output) -> u32>,
    /// The connection and its requests have ended. Not called if the connection ended before its `connection_start`.
    pub connection_end: Option<extern "C-unwind" fn(connection: *mut c_void) -> u32>,
    /// Bytes from the socket. `OK`: the bytes written to `output` replace them. `DECLINED`: they pass unchanged, and the output is
    /// dropped. `is_last` is 1 with the last bytes, which may be empty.
    pub connection_read:
        Option<extern "C-unwind" fn(connection: *mut c_void, bytes: Bytes, is_last: u32, output: *mut Output) -> u32>,
    /// Bytes for the socket; otherwise like `connection_read`.
    pub connection_write:
        Option<extern "C-unwind" fn(connection: *mut c_void, bytes: Bytes, is_last: u32, output: *mut Output) -> u32>,
    /// Creates the state of a request; null is a failure. `connection` is null without `connection_open`, and for connections
    /// that are older than the module. Without this function the request hooks get the state of the connection, or `module` if
    /// that is null.
    pub request_open: Option<
        extern "C-unwind" fn(module: *mut c_void, connection: *mut c_void, exchange: *mut Exchange) -> *mut c_void,
    >,
    /// Destroys the state of a request, after the response has ended.
    pub request_close: Option<extern "C-unwind" fn(request: *mut c_void)>,
    /// May change the request.
    pub before_request: Option<extern "C-unwind" fn(request: *mut c_void, exchange: *mut Exchange) -> u32>,
    /// May create the response.
    pub request: Option<extern "C-unwind" fn(request: *mut c_void, exchange: *mut Exchange) -> u32>,
    /// May change the response to an error, which the server has created.
    pub request_error: Option<extern "C-unwind" fn(request: *mut c_void, exchange: *mut Exchange, status: u32) -> u32>,
    /// May change the response, also one to an error.
    pub response: Option<extern "C-unwind" fn(request: *mut c_void, exchange: *mut Exchange) -> u32>,
    /// A chunk of a request body; like `connection_read`. Called only after `filter_body`, without an exchange, because the head
    /// has already been passed on.
    pub request_body:
        Option<extern "C-unwind" fn(request: *mut c_void, bytes: Bytes, is_last: u32, output: *mut Output) -> u32>,
    /// The same for a response body.
    pub response_body:
        Option<extern "C-unwind" fn(request: *mut c_void, bytes: Bytes, is_last: u32, output: *mut Output) -> u32>,
}

/// The type of `snaphook_module_v1`. It returns the descriptor; it must be quick and may be called more than once.
pub type Entry = extern "C-unwind" fn() -> *const Descriptor;

#[cfg(test)]
mod tests {
    use std::path::Path;

    const HEADER: &str = "../../c/snaphook_module.h";

    fn config() -> cbindgen::Config {
        let rename = [
            ("Text", "snaphook_module_text"),
            ("Bytes", "snaphook_module_bytes"),
            ("Header", "snaphook_module_header"),
            ("Setting", "snaphook_module_setting"),
            ("Config", "snaphook_module_config"),
            ("ConnectionInfo", "snaphook_module_connection_info"),
            ("Exchange", "snaphook_module_exchange"),
            ("Output", "snaphook_module_output"),
            ("Host", "snaphook_module_host"),
            ("Descriptor", "snaphook_module"),
            ("Entry", "snaphook_module_entry"),
        ];
        let constants = include_str!("lib.rs")
            .lines()
            .filter_map(|line| Some(line.strip_prefix("pub const ")?.split_once(':')?.0))
            .map(|name| (name.to_owned(), format!("SNAPHOOK_MODULE_{name}")));
        cbindgen::Config {
            language: cbindgen::Language::C,
            include_guard: Some("SNAPHOOK_MODULE_H".to_owned()),
            header: Some(
                "/* Server modules for Snaphook. Generated from sdk/module/abi/src/lib.rs: do not edit. */".to_owned(),
            ),
            trailer: Some(
                "/* The function that a library exports. On Windows add __declspec(dllexport). */\n\
                 #ifdef __cplusplus\nextern \"C\"\n#endif\nconst snaphook_module *snaphook_module_v1(void);"
                    .to_owned(),
            ),
            cpp_compat: true,
            usize_is_size_t: true,
            style: cbindgen::Style::Both,
            no_includes: true,
            sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
            documentation_style: cbindgen::DocumentationStyle::C99,
            export: cbindgen::ExportConfig {
                include: vec!["Descriptor".into(), "Entry".into()],
                // Handles are opaque in C; `after_includes` declares them.
                exclude: vec!["Exchange".into(), "Output".into()],
                rename: rename.map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter().chain(constants).collect(),
                ..cbindgen::ExportConfig::default()
            },
            after_includes: Some(
                "\n/* One request and its response, inside a hook. The handle is valid until the hook returns, on the \
                 thread that runs\n   the hook, and so are the texts and bytes that the host's functions return for it. */\n\
                 typedef struct snaphook_module_exchange snaphook_module_exchange;\n\n\
                 /* Where a filter writes. Valid until the function returns, on the thread that runs it. */\n\
                 typedef struct snaphook_module_output snaphook_module_output;"
                    .to_owned(),
            ),
            ..cbindgen::Config::default()
        }
    }

    #[test]
    fn the_header_is_current() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let made = cbindgen::Builder::new().with_src(root.join("src/lib.rs")).with_config(config()).generate().unwrap();
        let mut text = Vec::new();
        made.write(&mut text);
        let text = String::from_utf8(text).unwrap();
        if std::env::var_os("SNAPHOOK_BLESS").is_some() {
            std::fs::write(root.join(HEADER), &text).unwrap();
        }
        let kept = std::fs::read_to_string(root.join(HEADER)).unwrap_or_default();
        assert!(
            kept == text,
            "sdk/c/snaphook_module.h is outdated; SNAPHOOK_BLESS=1 cargo test -p snaphook-module-abi rewrites it:\n{text}"
        );
    }
}

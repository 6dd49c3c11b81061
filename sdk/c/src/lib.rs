//! The C ABI between the server and native hooks: plain data and function tables, no logic.
//!
//! `snaphook_hook.h` beside this crate is generated from this file (`SNAPHOOK_BLESS=1 cargo test -p snaphook-hook-abi`), so
//! the comments on public items are the header's comments too. Structures only grow at their ends; each that may grow
//! begins with its size, and the two that either side hands over first begin with the version.

// What is not public is not in the header: here the comments are C's, and the names are made fit for it by the generator.
#![allow(rustdoc::broken_intra_doc_links)]

use core::ffi::c_char;

/// The version of this interface. Another version is another interface: a library and a server must have the same.
pub const ABI_VERSION: u32 = 1;

/// Name of the function that a library exports: `const snaphook_descriptor *snaphook_hook(void)`.
pub const ENTRY_SYMBOL: &str = "snaphook_hook";

/// Phases, the values of `phase` in `snaphook_context`.
pub const PHASE_PRE_CREATE: u32 = 0;
pub const PHASE_POST_CREATE: u32 = 1;
pub const PHASE_PRE_UPDATE: u32 = 2;
pub const PHASE_POST_UPDATE: u32 = 3;
pub const PHASE_PRE_DELETE: u32 = 4;
pub const PHASE_POST_DELETE: u32 = 5;

/// Pre phases: accept the change. Post phases: done. No payload.
pub const ANSWER_ACCEPT: u32 = 1;
/// Accept the change with the payload as its data, a JSON object. Pre phases; needs the grant `amend`.
pub const ANSWER_AMEND: u32 = 2;
/// Reject the change. Pre phases. The payload is `{"message": "…", "fields": [{"pointer": "/a", "message": "…"}]}`.
pub const ANSWER_REJECT: u32 = 3;
/// The hook failed; the payload is a sentence in UTF-8 with the reason.
pub const ANSWER_FAIL: u32 = 4;

/// The host function succeeded.
pub const STATUS_OK: i32 = 0;
/// Nothing of that name exists.
pub const STATUS_NONE: i32 = 1;
/// The call was denied or failed: the buffer contains `{"code": "denied", "message": "…"}`. The hook may continue.
pub const STATUS_ERROR: i32 = 2;
/// The run is over: it exceeded a limit or its time. Return; an answer is ignored now.
pub const STATUS_OVER: i32 = 3;
/// The function was used incorrectly: invalid UTF-8, a null pointer, a handle that is unknown or already released. The run
/// fails with the reason.
pub const STATUS_MISUSE: i32 = 4;

/// Levels of log lines.
pub const LEVEL_DEBUG: u32 = 0;
pub const LEVEL_INFO: u32 = 1;
pub const LEVEL_WARN: u32 = 2;
pub const LEVEL_ERROR: u32 = 3;

/// Text in UTF-8, not terminated by a zero byte. `ptr` is null if there is no text.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Text {
    pub ptr: *const c_char,
    pub len: usize,
}

/// Bytes. `ptr` may be null if `len` is 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Bytes {
    pub ptr: *const u8,
    pub len: usize,
}

/// The result of a host function. The host owns the memory: it is valid until `release` is called with the handle, at the
/// latest until the run ends. Never free it in another way.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// 0: no result.
    pub handle: u64,
    pub ptr: *const u8,
    pub len: usize,
}

/// One change. Everything it points to is valid until the function returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Size of this structure in the host, in bytes.
    pub struct_size: usize,
    /// `SNAPHOOK_PHASE_…`
    pub phase: u32,
    /// 1 at first; greater than 1 when a post hook is retried.
    pub attempt: u32,
    /// Id and version of the model.
    pub model: Text,
    pub model_version: u64,
    /// Id of the instance.
    pub id: Text,
    /// JSON text of the data before the change; absent for a creation.
    pub before: Text,
    /// JSON text of the data after the change; absent for a deletion.
    pub after: Text,
    /// JSON text of the actor who made the change, `{"id", "kind", "claims"?}`; absent if unknown.
    pub actor: Text,
    pub request_id: Text,
    /// RFC 3339, UTC, with milliseconds.
    pub time: Text,
    /// Post phases: the event that the hook reacts to. 0 and absent in pre phases.
    pub event_position: u64,
    pub event_id: Text,
}

/// The host functions. `call` is the number that `check` or `react` got; it is invalid after they returned. Functions may be
/// called from any thread during the run. Those with a result write it into `out`, and return `SNAPHOOK_STATUS_…`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub abi_version: u32,
    /// Size of this table in the host, in bytes.
    pub struct_size: u32,
    /// Sets the result of the run: `SNAPHOOK_ANSWER_…` and its payload, which is copied. Exactly once per run.
    pub answer: extern "C" fn(call: u64, kind: u32, payload: Bytes) -> i32,
    /// Frees a buffer before the run ends. Once per buffer.
    pub release: extern "C" fn(call: u64, handle: u64) -> i32,
    /// Writes a line to the hook's own log; `level` is `SNAPHOOK_LEVEL_…`.
    pub log: extern "C" fn(call: u64, level: u32, message: Text) -> i32,
    /// The instance as JSON: `{"id", "model", "model_version", "revision", "position", "created_at", "updated_at", "data"}`.
    pub read_get: extern "C" fn(call: u64, model: Text, id: Text, out: *mut Buffer) -> i32,
    /// `{"items": […], "next": null}`. `query` is JSON, as in REST: `{"filter": {path: {op: value}}, "sort", "limit", "cursor"}`.
    pub read_query: extern "C" fn(call: u64, model: Text, query: Text, out: *mut Buffer) -> i32,
    /// The event at a position, as JSON.
    pub read_event: extern "C" fn(call: u64, position: u64, out: *mut Buffer) -> i32,
    /// Returns the instance. Without `id` the server creates one. Post phases only, like all following functions except `secret_get`.
    pub write_create: extern "C" fn(call: u64, model: Text, id: Text, data: Text, out: *mut Buffer) -> i32,
    /// `expected`: null, or the position that the instance must have.
    pub write_update:
        extern "C" fn(call: u64, model: Text, id: Text, data: Text, expected: *const u64, out: *mut Buffer) -> i32,
    /// Returns the instance before the deletion.
    pub write_delete: extern "C" fn(call: u64, model: Text, id: Text, expected: *const u64, out: *mut Buffer) -> i32,
    /// `request` is `{"method": "GET", "url": "…", "headers": [["a", "b"]], "timeout_ms": 1000, "redirect": "follow"}`; all members
    /// except `url` are optional. `head` gets `{"status", "url", "redirected", "headers"}`, or the error.
    pub http_send:
        extern "C" fn(call: u64, request: Text, body: Bytes, head: *mut Buffer, response_body: *mut Buffer) -> i32,
    /// `command` is `{"program": "/…", "args": […], "env": [["a", "b"]], "timeout_ms": 1000}`; all members except `program` are
    /// optional. `code` gets the exit code, 128 + signal if a signal ended the program; `output` gets the error, if there is one.
    pub process_run: extern "C" fn(
        call: u64,
        command: Text,
        input: Bytes,
        code: *mut i32,
        output: *mut Buffer,
        error_output: *mut Buffer,
    ) -> i32,
    pub secret_get: extern "C" fn(call: u64, name: Text, out: *mut Buffer) -> i32,
}

/// The descriptor of a library; it must not change while the library is loaded. A function sets its result with
/// `host->answer`, then returns. It may run on many threads at once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// `SNAPHOOK_ABI_VERSION`
    pub abi_version: u32,
    /// `sizeof(snaphook_descriptor)`
    pub struct_size: u32,
    /// A name for messages.
    pub name: Text,
    /// Runs in pre phases; null if the library has no hook for them.
    pub check: Option<extern "C-unwind" fn(call: u64, context: *const Context, host: *const Host)>,
    /// Runs in post phases; null if the library has no hook for them.
    pub react: Option<extern "C-unwind" fn(call: u64, context: *const Context, host: *const Host)>,
}

/// `check` or `react`. (Not in the header, where the type stands in the descriptor.)
///
/// cbindgen:ignore
pub type Handler = extern "C-unwind" fn(call: u64, context: *const Context, host: *const Host);

/// The type of `snaphook_hook`. It only returns the descriptor: it must be quick and may be called more than once.
pub type Entry = extern "C-unwind" fn() -> *const Descriptor;

#[cfg(test)]
mod tests {
    use std::path::Path;

    const HEADER: &str = "snaphook_hook.h";

    fn config() -> cbindgen::Config {
        let rename = [
            ("Text", "snaphook_text"),
            ("Bytes", "snaphook_bytes"),
            ("Buffer", "snaphook_buffer"),
            ("Context", "snaphook_context"),
            ("Host", "snaphook_host"),
            ("Descriptor", "snaphook_descriptor"),
            ("Entry", "snaphook_entry"),
        ];
        let constants = include_str!("lib.rs")
            .lines()
            .filter_map(|line| Some(line.strip_prefix("pub const ")?.split_once(':')?.0))
            .map(|name| (name.to_owned(), format!("SNAPHOOK_{name}")));
        cbindgen::Config {
            language: cbindgen::Language::C,
            include_guard: Some("SNAPHOOK_HOOK_H".to_owned()),
            header: Some(
                "/* Native hooks for Snaphook. Generated from sdk/c/src/lib.rs: do not edit.\n   How to use it: \
                 docs/hooks/native.md; an example: sdk/c/examples/check.c. */"
                    .to_owned(),
            ),
            trailer: Some(
                "/* What a library exports, under this name. On Windows add __declspec(dllexport). */\n\
                 #ifdef __cplusplus\nextern \"C\"\n#endif\nconst snaphook_descriptor *snaphook_hook(void);"
                    .to_owned(),
            ),
            cpp_compat: true,
            usize_is_size_t: true,
            style: cbindgen::Style::Type,
            no_includes: true,
            sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
            documentation_style: cbindgen::DocumentationStyle::C99,
            export: cbindgen::ExportConfig {
                include: vec!["Descriptor".into(), "Context".into(), "Host".into(), "Entry".into()],
                rename: rename.map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter().chain(constants).collect(),
                ..cbindgen::ExportConfig::default()
            },
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
            "{HEADER} is old; SNAPHOOK_BLESS=1 cargo test -p snaphook-hook-abi writes it anew:\n{text}"
        );
    }
}

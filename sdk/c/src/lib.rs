//! The C ABI between the server and native hooks: plain data and function tables, no logic.
//!
//! `snaphook_hook.h` beside this crate is generated from this file (`SNAPHOOK_BLESS=1 cargo test -p snaphook-hook-abi`), so
//! the comments on public items are the header's comments too. Structs grow only at their end; each that may grow begins
//! with its size, and the table and the descriptor, which the two sides pass to each other first, with the version.

// Only public items are in the header. Its generator renames them, and comments use the C names, which rustdoc cannot resolve.
#![allow(rustdoc::broken_intra_doc_links)]

use core::ffi::c_char;

/// The version of this interface. A library and a server must have the same.
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

/// Pre phases: accept the change. Post phases: the hook has succeeded. The payload is ignored.
pub const ANSWER_ACCEPT: u32 = 1;
/// Accept the change with the payload as its data, a JSON object. Only when creating and updating; needs the grant `amend`.
pub const ANSWER_AMEND: u32 = 2;
/// Reject the change. Only in pre phases. The payload is `{"message": "…", "fields": [{"pointer": "/a", "message": "…"}]}`;
/// `fields` is optional.
pub const ANSWER_REJECT: u32 = 3;
/// The hook failed; the payload is a sentence in UTF-8 with the reason.
pub const ANSWER_FAIL: u32 = 4;

/// The host function succeeded.
pub const STATUS_OK: i32 = 0;
/// There is no such instance or event. The buffer is not written.
pub const STATUS_NONE: i32 = 1;
/// The call was denied or failed: the buffer contains `{"code": "denied", "message": "…"}`. The hook may continue.
pub const STATUS_ERROR: i32 = 2;
/// The run is over: it exceeded a limit or its time. Return; the host ignores all further calls.
pub const STATUS_OVER: i32 = 3;
/// The function was used incorrectly: invalid UTF-8, a null pointer, a handle that is unknown or already released, a second
/// answer. The run fails with the reason.
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
/// latest until `check` or `react` returns. Do not free it yourself.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Never 0 in a result. Set it to 0 beforehand to see whether the host function wrote one.
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
    /// Id of the request that caused the change; absent if there is none.
    pub request_id: Text,
    /// Time of the change: RFC 3339, UTC, with milliseconds.
    pub time: Text,
    /// Post phases: the event that the hook reacts to. 0 and absent in pre phases.
    pub event_position: u64,
    pub event_id: Text,
}

/// The host functions. `call` is the number that `check` or `react` received; it is invalid once the function has returned.
/// Until then, host functions may be called from any thread. They return `SNAPHOOK_STATUS_…` and write their result, or the
/// error, into `out`. Their arguments need to be valid only until they return.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub abi_version: u32,
    /// Size of this table in the host, in bytes.
    pub struct_size: u32,
    /// Sets the result of the run: `SNAPHOOK_ANSWER_…` and its payload, at most 16 MiB. Exactly once per run.
    pub answer: extern "C" fn(call: u64, kind: u32, payload: Bytes) -> i32,
    /// Frees a buffer before the function returns; at most once per buffer.
    pub release: extern "C" fn(call: u64, handle: u64) -> i32,
    /// Writes a line to the hook's own log; `level` is `SNAPHOOK_LEVEL_…`.
    pub log: extern "C" fn(call: u64, level: u32, message: Text) -> i32,
    /// The instance as JSON: `{"id", "model", "model_version", "revision", "position", "created_at", "updated_at", "data"}`.
    pub read_get: extern "C" fn(call: u64, model: Text, id: Text, out: *mut Buffer) -> i32,
    /// A page: `{"items": […], "next": null}`. `query` is JSON: `{"filter": {path: {op: value}}, "sort", "limit", "cursor"}`, all
    /// members optional, with values as in REST.
    pub read_query: extern "C" fn(call: u64, model: Text, query: Text, out: *mut Buffer) -> i32,
    /// The event at a position, as JSON.
    pub read_event: extern "C" fn(call: u64, position: u64, out: *mut Buffer) -> i32,
    /// Returns the instance. If `id.ptr` is null, the server creates an id. Only in post phases, like all functions below except
    /// `secret_get`. Without a `read` grant for the model, `data` in the result is the data that the hook sent.
    pub write_create: extern "C" fn(call: u64, model: Text, id: Text, data: Text, out: *mut Buffer) -> i32,
    /// `expected`: null, or the position that the instance must have; otherwise the error has the code `conflict`.
    pub write_update:
        extern "C" fn(call: u64, model: Text, id: Text, data: Text, expected: *const u64, out: *mut Buffer) -> i32,
    /// Returns the instance before the deletion, without a `read` grant for the model with `null` as `data`.
    pub write_delete: extern "C" fn(call: u64, model: Text, id: Text, expected: *const u64, out: *mut Buffer) -> i32,
    /// `request` is `{"method": "GET", "url": "…", "headers": [["a", "b"]], "timeout_ms": 1000, "redirect": "follow"}`; all members
    /// except `url` are optional. `head` gets `{"status", "url", "redirected", "headers"}`, or the error; then `response_body` is
    /// not written.
    pub http_send:
        extern "C" fn(call: u64, request: Text, body: Bytes, head: *mut Buffer, response_body: *mut Buffer) -> i32,
    /// `command` is `{"program": "/…", "args": […], "env": [["a", "b"]], "timeout_ms": 1000}`; all members except `program` are
    /// optional. `code` gets the exit code, or 128 + the signal that ended the program; `output` gets what the program wrote to
    /// standard output, `error_output` to standard error. If the call fails, `output` gets the error and the others are not
    /// written.
    pub process_run: extern "C" fn(
        call: u64,
        command: Text,
        input: Bytes,
        code: *mut i32,
        output: *mut Buffer,
        error_output: *mut Buffer,
    ) -> i32,
    /// The secret as text. A secret that does not exist is an error with the code `not-found`.
    pub secret_get: extern "C" fn(call: u64, name: Text, out: *mut Buffer) -> i32,
}

/// The descriptor of a library. Everything that it points to must not change until the process ends: libraries are not
/// unloaded. `check` and `react` set their result with `host->answer`, then return. They may run on many threads at once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// `SNAPHOOK_ABI_VERSION`
    pub abi_version: u32,
    /// `sizeof(snaphook_descriptor)`
    pub struct_size: u32,
    /// A name for messages, 1 to 200 bytes.
    pub name: Text,
    /// Runs in pre phases; null if the library has no hook for them.
    pub check: Option<extern "C-unwind" fn(call: u64, context: *const Context, host: *const Host)>,
    /// Runs in post phases; null if the library has no hook for them.
    pub react: Option<extern "C-unwind" fn(call: u64, context: *const Context, host: *const Host)>,
}

/// `check` or `react`. (Not in the header, where the descriptor contains the type itself.)
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
                "/* Native hooks for Snaphook. Generated from sdk/c/src/lib.rs: do not edit.\n   Manual: docs/hooks/native.md; \
                 example: sdk/c/examples/check.c. */"
                    .to_owned(),
            ),
            trailer: Some(
                "/* The function that a library exports. On Windows add __declspec(dllexport). */\n\
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
            "{HEADER} is outdated; SNAPHOOK_BLESS=1 cargo test -p snaphook-hook-abi rewrites it:\n{text}"
        );
    }
}

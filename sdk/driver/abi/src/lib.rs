//! The C ABI between the server and libraries that bring drivers: plain data and function types, no logic.
//!
//! `sdk/c/snaphook_driver.h` is generated from this file (`SNAPHOOK_BLESS=1 cargo test -p snaphook-driver-abi`), so the
//! comments on public items are the header's comments too. The descriptor grows only at its end.

// Only public items are in the header. Its generator renames them, and comments use the C names, which rustdoc cannot resolve.
#![allow(rustdoc::broken_intra_doc_links)]

use core::ffi::c_char;

/// The version of this interface. A library and a server must have the same.
pub const ABI_VERSION: u32 = 1;

/// The function that a library exports: `const snaphook_plugin *snaphook_plugin_v1(void)`.
pub const SYMBOL: &str = "snaphook_plugin_v1";

/// The call succeeded. The response is the method's message.
pub const OK: u32 = 0;
/// The call failed. The response is a message `Error`.
pub const ERROR: u32 = 1;

/// Text in UTF-8, not terminated by a zero byte.
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

/// How a call is completed: by `complete(call, status, response)`, exactly once, whether the call succeeded, failed or
/// was cancelled.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The number of the call, which is never used again.
    pub call: u64,
    /// May be called from any thread, before or after `open` or `call` returns. `status` is `SNAPHOOK_PLUGIN_OK` or
    /// `SNAPHOOK_PLUGIN_ERROR`. The server copies the response, at most 256 MiB, before this returns.
    pub complete: extern "C" fn(call: u64, status: u32, response: Bytes),
}

/// The descriptor of a library. Everything that it points to must not change until the process ends: libraries are not unloaded.
///
/// Functions may be called from any thread, many at once, and must not wait: `open` and `call` start their work, return,
/// and complete it later. Work that takes only microseconds may be done, and completed, before they return. The bytes of
/// a request are valid until the function returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// `SNAPHOOK_PLUGIN_ABI_VERSION`
    pub abi_version: u32,
    /// `sizeof(snaphook_plugin)`
    pub struct_size: u32,
    /// 1 to 200 bytes.
    pub name: Text,
    /// 1 to 200 bytes.
    pub version: Text,
    /// A message `Plugin` of driver.proto with the same name and version.
    pub description: Bytes,
    /// Opens a store. The request is a message `OpenRequest`, the response an `OpenResponse`.
    pub open: Option<extern "C-unwind" fn(request: Bytes, completion: Completion)>,
    /// Calls a method of an opened store. `handle` is that of the `OpenResponse`, `method` a `SNAPHOOK_METHOD_…`. After a
    /// `…_CLOSE` the server begins no call with the handle, but one that it began before may arrive later.
    pub call: Option<extern "C-unwind" fn(handle: u64, method: u32, request: Bytes, completion: Completion)>,
    /// The server no longer waits for this call: the library may end it early, but must complete it like any other. Called after
    /// `open` or `call` has returned; the call may already be complete. Null if calls cannot be cancelled.
    pub cancel: Option<extern "C-unwind" fn(call: u64)>,
}

/// The type of `snaphook_plugin_v1`. It returns the descriptor; it must be quick and may be called more than once.
pub type Entry = extern "C-unwind" fn() -> *const Descriptor;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use snaphook_driver::wire::Method;

    const HEADER: &str = "../../c/snaphook_driver.h";

    fn config() -> cbindgen::Config {
        let rename = [
            ("Text", "snaphook_plugin_text"),
            ("Bytes", "snaphook_plugin_bytes"),
            ("Completion", "snaphook_plugin_completion"),
            ("Descriptor", "snaphook_plugin"),
            ("Entry", "snaphook_plugin_entry"),
        ];
        let constants = include_str!("lib.rs")
            .lines()
            .filter_map(|line| Some(line.strip_prefix("pub const ")?.split_once(':')?.0))
            .map(|name| (name.to_owned(), format!("SNAPHOOK_PLUGIN_{name}")));
        cbindgen::Config {
            language: cbindgen::Language::C,
            include_guard: Some("SNAPHOOK_DRIVER_H".to_owned()),
            header: Some(
                "/* Libraries with drivers for Snaphook. Generated from sdk/driver/abi/src/lib.rs: do not edit.\n   \
                 Messages: sdk/driver/proto/driver.proto; an example: sdk/c/examples/secure.c. */"
                    .to_owned(),
            ),
            trailer: Some(format!(
                "/* Methods of stores, the values of `method` in `call`. */\n{}\n\
                 /* The function that a library exports. On Windows add __declspec(dllexport). */\n\
                 #ifdef __cplusplus\nextern \"C\"\n#endif\nconst snaphook_plugin *snaphook_plugin_v1(void);",
                methods()
            )),
            cpp_compat: true,
            usize_is_size_t: true,
            style: cbindgen::Style::Type,
            no_includes: true,
            sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
            documentation_style: cbindgen::DocumentationStyle::C99,
            export: cbindgen::ExportConfig {
                include: vec!["Descriptor".into(), "Entry".into()],
                rename: rename.map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter().chain(constants).collect(),
                ..cbindgen::ExportConfig::default()
            },
            ..cbindgen::Config::default()
        }
    }

    /// `#define SNAPHOOK_METHOD_SECURE_GET 3` and so on.
    fn methods() -> String {
        Method::ALL.iter().fold(String::new(), |mut text, method| {
            let name = format!("{}_{}", method.store(), method.name().replace('-', "_")).to_uppercase();
            writeln!(text, "#define SNAPHOOK_METHOD_{name} {}", method.number()).unwrap();
            text
        })
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
            "sdk/c/snaphook_driver.h is outdated; SNAPHOOK_BLESS=1 cargo test -p snaphook-driver-abi rewrites it:\n{text}"
        );
    }
}

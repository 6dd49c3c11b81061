//! Only the few files in this table, one per boundary, contain unsafe code.

use super::code::{blank_comments_and_strings, has_word, lines};
use super::{File, Finding};

/// Files that may contain unsafe code, and what they are the boundary to.
const ALLOWED: [(&str, &str); 27] = [
    ("foreign/src/lib.rs", "the C that stops what libraries throw"),
    ("modules/src/library.rs", "the code of server modules"),
    ("modules/src/table.rs", "the memory that server modules hand to the server"),
    ("plugins/sqlite/src/flush.rs", "the file of an SQLite connection"),
    ("src/hooks/capabilities/process/child.rs", "what a child process does to itself before it becomes the program"),
    ("src/hooks/engines/native/library.rs", "the code of native hooks"),
    ("src/hooks/engines/native/table.rs", "the memory that native hooks hand to the host"),
    ("src/hooks/engines/pagemap.rs", "which pages of memory were written, asked of the kernel"),
    ("src/hooks/engines/quickjs/runner/src/exports.rs", "the server, from inside of the JavaScript runner's module"),
    ("src/hooks/engines/quickjs/runner/src/heap.rs", "the memory that QuickJS and Rust allocate there"),
    ("src/hooks/engines/quickjs/runner/src/host.rs", "what the server reads and writes of that module's memory"),
    ("src/hooks/engines/quickjs/runner/src/quickjs.rs", "QuickJS in C, as far as rquickjs has no safe form"),
    ("src/hooks/engines/quickjs/runner/src/single.rs", "statics of a module with one thread"),
    ("src/hooks/engines/v8/worker/image.rs", "the memory of a worker process, put back after a call"),
    ("src/hooks/engines/v8/worker/library.rs", "the V8 library, opened at run time"),
    ("src/hooks/engines/v8/worker/promises.rs", "functions of V8 that the library's C interface lacks"),
    ("src/hooks/engines/v8/worker/system.rs", "fork, signals and limits of a worker process"),
    ("src/hooks/engines/wasm/artifact.rs", "compiled code that this process did not just make"),
    ("src/memory/allocator.rs", "the allocators, which give memory back when they are told to"),
    ("sdk/driver/loader/src/completion.rs", "the answers of libraries with drivers"),
    ("sdk/driver/loader/src/library.rs", "the code of libraries with drivers"),
    ("sdk/driver/plugin/src/boundary.rs", "the server, from inside of a library with drivers"),
    ("sdk/driver/plugin/src/boundary/tests.rs", "the plugin's answers, in the place of the server"),
    ("sdk/module/src/boundary.rs", "the server, from inside of a library with a module"),
    ("sdk/module/src/views.rs", "the server, from inside of a library with a module"),
    ("sdk/module/src/boundary/tests.rs", "the module, in the place of the server"),
    ("sdk/hook/src/native.rs", "the C ABI, from the side of a library in Rust"),
];

/// Checks one file, given without comments and literals.
pub(crate) fn check(path: &str, code: &str) -> Vec<Finding> {
    if ALLOWED.iter().any(|(allowed, _)| *allowed == path) {
        return Vec::new();
    }
    let message = "unsafe code; the files that may contain it are listed in xtask/src/tidy/unsafety.rs";
    lines(code)
        .filter(|(_, text)| has_word(text, "unsafe"))
        .map(|(line, _)| Finding::new(path, line, message))
        .collect()
}

/// Each entry of the table must still be needed, and its file must give the reason.
pub(crate) fn check_table(files: &[File]) -> Vec<Finding> {
    ALLOWED.iter().filter_map(|(path, _)| check_entry(path, files)).collect()
}

fn check_entry(path: &str, files: &[File]) -> Option<Finding> {
    let Some(file) = files.iter().find(|file| file.path == path) else {
        return Some(Finding::new(path, 0, "is listed in xtask/src/tidy/unsafety.rs, but there is no such file"));
    };
    if !has_word(&blank_comments_and_strings(&file.text), "unsafe") {
        return Some(Finding::new(path, 0, "is listed in xtask/src/tidy/unsafety.rs, but contains no unsafe code"));
    }
    if !file.text.contains("expect(unsafe_code, reason") && !file.text.contains("unsafe_code,\n") {
        return Some(Finding::new(path, 0, "contains unsafe code without `#![expect(unsafe_code, reason = \"…\")]`"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn unsafe_code_is_found_where_it_stands() {
        let code = "fn a() {}\nfn b() { unsafe { x() } }";
        assert_eq!(check("src/a.rs", code)[0].line, 2);
        assert!(check("src/a.rs", "#![deny(unsafe_code)]").is_empty());
    }

    #[test]
    fn an_entry_must_be_needed_and_explained() {
        let explained = "//! x\n#![expect(unsafe_code, reason = \"y\")]\nunsafe fn f() {}";
        assert!(check_entry("a.rs", &[file("a.rs", explained)]).is_none());
        assert!(check_entry("a.rs", &[file("a.rs", "unsafe fn f() {}")]).unwrap().message.contains("without"));
        assert!(check_entry("a.rs", &[file("a.rs", "// unsafe")]).unwrap().message.contains("contains no unsafe"));
        assert!(check_entry("a.rs", &[]).unwrap().message.contains("no such file"));
    }
}

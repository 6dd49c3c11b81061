//! Each layer uses only those below it, and only the layer that is responsible for an external crate names it.

use super::code::{has_word, lines};
use super::{File, Finding};

/// The folders of `src/`, from the top. Each may use those after it.
const LAYERS: [&str; 9] = ["cli", "server", "engine", "hooks", "catalog", "drivers", "memory", "telemetry", "config"];

/// Crates that only some folders may use: their names, and these folders.
const CRATES: [(&[&str], &[&str]); 8] = [
    // The requests of `wasi:http` are hyper's types.
    (
        &["axum", "hyper", "hyper_util"],
        &[
            "src/server/",
            "src/hooks/engines/component/wasi_http.rs",
            "src/hooks/engines/component/proxy.rs",
            "src/hooks/host/exchange.rs",
            "plugins/remote/src/host/",
            "tests/",
        ],
    ),
    (&["clap", "indicatif"], &["src/cli/"]),
    (&["wasmtime", "wasmtime_wasi", "wasmtime_wizer"], &["src/hooks/"]),
    (&["oxc_parser", "oxc_transformer", "oxc_codegen", "oxc_semantic", "oxc_ast", "oxc_sourcemap"], &["src/hooks/"]),
    (&["jsonschema", "fancy_regex", "regex_automata"], &["schema/"]),
    (&["snaphook_schema"], &["src/catalog/"]),
    (&["rusqlite"], &["plugins/sqlite/", "tests/"]),
    (&["landlock"], &["src/hooks/"]),
];

/// Macros that print: only the program, not a library, may write to standard output.
const PRINTING: [&str; 4] = ["println", "print", "eprintln", "eprint"];
const PRINTING_ALLOWED: [&str; 4] = ["src/cli/", "src/main.rs", "plugins/stdout/", "sdk/driver/testkit/"];

/// Checks one file, given without comments and literals.
pub(crate) fn check(path: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(layer) = layer_of(path) {
        findings.extend(upward_uses(path, layer, code));
    }
    let is_outside = ["sdk/", "plugins/"].iter().any(|folder| path.starts_with(folder));
    for (line, text) in lines(code) {
        if is_outside && path_roots(text).any(|root| root == "snaphook") {
            findings.push(Finding::new(path, line, "uses the server crate `snaphook`; use only `snaphook_driver`"));
        }
        if (path.starts_with("src/") || is_outside) && !may_print(path) {
            for printing in PRINTING.iter().filter(|name| has_macro(text, name)) {
                findings.push(Finding::new(path, line, format!("`{printing}!` outside the CLI; use `tracing`")));
            }
        }
        if !path.starts_with("src/") && !is_outside {
            continue;
        }
        for (names, places) in CRATES {
            if places.iter().any(|place| path.starts_with(place)) {
                continue;
            }
            for name in names.iter().filter(|name| path_roots(text).any(|root| root == **name)) {
                findings.push(Finding::new(path, line, format!("names `{name}`, which only {places:?} may use")));
            }
        }
    }
    findings
}

/// Crates outside `src/` must not depend on the server crate.
pub(crate) fn check_manifests(files: &[File]) -> Vec<Finding> {
    let is_manifest = |path: &str| {
        path.ends_with("Cargo.toml") && ["sdk/", "plugins/", "hooks/"].iter().any(|folder| path.starts_with(folder))
    };
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_manifest(&file.path)) {
        for (line, text) in lines(&file.text) {
            let name = text.split(['=', '.', ' ']).next().unwrap_or_default().trim_matches('"');
            if name == "snaphook" {
                findings.push(Finding::new(&file.path, line, "depends on the server crate `snaphook`"));
            }
        }
    }
    findings
}

/// Tests may print what they skip, examples their measurements, and a build script its instructions to cargo.
fn may_print(path: &str) -> bool {
    path.ends_with("tests.rs")
        || path.ends_with("/build.rs")
        || path.contains("/tests/")
        || path.contains("/examples/")
        || PRINTING_ALLOWED.iter().any(|place| path.starts_with(place))
}

fn layer_of(path: &str) -> Option<&'static str> {
    let rest = path.strip_prefix("src/")?;
    let first = rest.split('/').next()?;
    let first = first.strip_suffix(".rs").unwrap_or(first);
    LAYERS.into_iter().find(|layer| *layer == first)
}

fn rank(layer: &str) -> usize {
    LAYERS.iter().position(|name| *name == layer).unwrap_or(0)
}

fn upward_uses(path: &str, layer: &str, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (position, used) in used_layers(path, code) {
        if rank(used) < rank(layer) {
            let line = code[..position].matches('\n').count() + 1;
            let below = LAYERS[rank(layer) + 1..].join("`, `");
            let message = format!("layer `{layer}` uses `{used}`, which is above it; it may use `{below}`");
            findings.push(Finding::new(path, line, message));
        }
    }
    findings
}

/// Layers named with `crate::…`, `crate::{…}` or enough `super::`, with their position in the text.
fn used_layers<'a>(path: &str, code: &'a str) -> Vec<(usize, &'a str)> {
    // `src/a/b.rs` is module `a::b` and needs two `super::` to reach the crate root; `src/a/mod.rs` is `a` and needs
    // one.
    let depth = path.split('/').count() - 1 - usize::from(path.ends_with("/mod.rs"));
    let supers = "super::".repeat(depth);
    let mut used = Vec::new();
    for prefix in ["crate::", supers.as_str()] {
        for (start, _) in code.match_indices(prefix) {
            if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == ':') {
                continue;
            }
            let rest_start = start + prefix.len();
            let rest = &code[rest_start..];
            if let Some(group) = rest.strip_prefix('{') {
                used.extend(group_heads(group).into_iter().map(|(offset, name)| (rest_start + 1 + offset, name)));
            } else {
                used.push((rest_start, head(rest)));
            }
        }
    }
    used.retain(|(_, name)| LAYERS.contains(name));
    used
}

/// The first identifier of each entry of `a::{…}`, given the text after the opening brace.
fn group_heads(group: &str) -> Vec<(usize, &str)> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut is_start = true;
    for (offset, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            c if c.is_whitespace() => {}
            _ if is_start => {
                heads.push((offset, head(&group[offset..])));
                is_start = false;
            }
            _ => {}
        }
    }
    heads
}

fn head(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The first names of paths: before a `::` that does not follow another one, and after `use` and `extern crate`.
fn path_roots(line: &str) -> impl Iterator<Item = &str> {
    let after_use = line.trim_start().strip_prefix("pub ").unwrap_or(line.trim_start()).strip_prefix("use ").map(head);
    let before_colons = line.match_indices("::").filter_map(|(end, _)| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let start = line[..end].rfind(|c| !is_part(c)).map_or(0, |at| at + 1);
        (start < end && !line[..start].ends_with("::")).then(|| &line[start..end])
    });
    after_use.into_iter().chain(before_colons)
}

fn has_macro(line: &str, name: &str) -> bool {
    has_word(line, name) && line.contains(&format!("{name}!"))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[track_caller]
    fn messages(path: &str, code: &str) -> Vec<String> {
        check(path, code).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_layer_may_use_itself_and_those_below() {
        assert!(messages("src/engine/commit.rs", "use crate::catalog::Model;\nuse crate::engine::x;").is_empty());
        assert!(messages("src/cli/serve.rs", "use crate::{config::Config, server};").is_empty());
    }

    #[test]
    fn a_layer_may_not_use_those_above() {
        let found = messages("src/hooks/host.rs", "\nuse crate::engine::Engine;");
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("src/hooks/host.rs:2: layer `hooks` uses `engine`"), "{}", found[0]);
    }

    #[test]
    fn groups_and_supers_are_seen_through() {
        assert_eq!(
            messages("src/catalog/model.rs", "use crate::{\n  config::{Phase, server},\n  server,\n};").len(),
            1
        );
        assert_eq!(messages("src/catalog/mod.rs", "use super::server::run;").len(), 1);
        assert_eq!(messages("src/hooks/engines/mod.rs", "use super::super::engine::Engine;").len(), 1);
        assert!(messages("src/hooks/engines/mod.rs", "use super::context::Context;").is_empty());
        assert!(messages("src/hooks/host.rs", "use other_crate::engine::x; use wasm::crate::engine;").is_empty());
    }

    #[test]
    fn crates_stay_where_they_belong() {
        assert_eq!(messages("src/engine/mod.rs", "use axum::Router;").len(), 1);
        assert!(messages("src/server/mod.rs", "use axum::Router;").is_empty());
        assert_eq!(messages("plugins/memory/src/lib.rs", "fn f() { rusqlite::open() }").len(), 1);
        assert!(messages("src/engine/mod.rs", "use snaphook_driver::axum_like;").is_empty());
    }

    #[test]
    fn printing_is_for_the_cli() {
        assert_eq!(messages("src/engine/mod.rs", "println!(x)").len(), 1);
        assert!(messages("src/cli/mod.rs", "println!(x)").is_empty());
    }

    #[test]
    fn sdk_and_plugins_do_not_know_the_server() {
        assert_eq!(messages("plugins/file/src/lib.rs", "use snaphook::config;").len(), 1);
        assert!(messages("plugins/file/src/lib.rs", "use snaphook_driver::Event;").is_empty());
        let manifest =
            file("plugins/file/Cargo.toml", "[dependencies]\nsnaphook-driver.workspace = true\nsnaphook = {}");
        assert_eq!(check_manifests(&[manifest])[0].line, 3);
    }
}

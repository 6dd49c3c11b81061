//! Text is parsed into a JSON tree in only one place, which names in the text cannot mislead.
//!
//! serde_json's readers treat some member names in a client's data as internal markers. So only the files in a table
//! may use these readers; all others use `snaphook_driver::json`, and no type that is read contains a tree.

use super::code::{blank_comments_and_strings, has_word, lines};
use super::{File, Finding};

/// Files that may use serde_json's readers, and why that is safe.
const ALLOWED: [(&str, &str); 7] = [
    ("plugins/sqlite/src/value.rs", "one member of an object, as raw text"),
    ("sdk/driver/src/json/mod.rs", "the one place: typed reading, and raw text"),
    ("sdk/hook/src/actor.rs", "an actor as the server sends it, its claims as raw text"),
    ("sdk/hook/src/change.rs", "members of an object, each as raw text"),
    ("sdk/hook/src/data.rs", "the data of hooks, once no name in it can mislead"),
    ("sdk/hook/src/mock.rs", "what a test of a hook wrote itself"),
    ("sdk/hook/src/native.rs", "the server's answers, in types without a tree"),
];

/// Code that handles external data. Integration tests and tools only read data that they wrote.
const FOLDERS: [&str; 4] = ["src/", "sdk/", "plugins/", "identity/"];

/// Hooks written by authors, who choose their own library.
const FOREIGN: [&str; 2] = ["sdk/templates/", "sdk/c/"];

const READERS: [&str; 7] =
    ["from_str", "from_slice", "from_reader", "from_value", "to_value", "Deserializer", "StreamDeserializer"];

/// Parts of serde_json's trees.
const TREES: [&str; 2] = ["Value", "Map"];

/// Checks one file, given without comments and literals.
pub(crate) fn check(path: &str, code: &str) -> Vec<Finding> {
    let is_ours = FOLDERS.iter().any(|folder| path.starts_with(folder));
    if !is_ours || FOREIGN.iter().any(|folder| path.starts_with(folder)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if !ALLOWED.iter().any(|(allowed, _)| *allowed == path) {
        findings.extend(readers(code).map(|(line, name)| {
            let message = format!(
                "`serde_json::{name}`: use `snaphook_driver::json` (`parse` for a tree, `typed` for a type without one); \
                 the files that may use serde_json's readers are listed in xtask/src/tidy/json.rs"
            );
            Finding::new(path, line, message)
        }));
    }
    findings.extend(trees_in_types(code).map(|line| {
        let message =
            "a type with `Deserialize` contains a tree of serde_json: use `snaphook_driver::json::Tree` or `Json`";
        Finding::new(path, line, message)
    }));
    findings
}

/// Each entry of the table must still be needed.
pub(crate) fn check_table(files: &[File]) -> Vec<Finding> {
    let is_needed = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.is_some_and(|file| readers(&blank_comments_and_strings(&file.text)).next().is_some())
    };
    let message = "is listed in xtask/src/tidy/json.rs, but uses no reader of serde_json";
    ALLOWED.iter().filter(|(path, _)| !is_needed(path)).map(|(path, _)| Finding::new(path, 0, message)).collect()
}

/// Uses of serde_json's readers, by their paths or in an import: line and name.
fn readers(code: &str) -> impl Iterator<Item = (usize, &'static str)> {
    const CRATE: &str = "serde_json::";
    code.match_indices(CRATE).flat_map(move |(start, _)| {
        let rest = &code[start + CRATE.len()..];
        let end = match rest.starts_with('{') {
            true => rest.find('}').unwrap_or(rest.len()),
            false => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
        };
        let line = code[..start].matches('\n').count() + 1;
        READERS.into_iter().filter(move |name| has_word(&rest[..end], name)).map(move |name| (line, name))
    })
}

/// Types that derive `Deserialize` and name a tree: the line of the name.
fn trees_in_types(code: &str) -> impl Iterator<Item = usize> {
    let derives = code.match_indices("derive(").filter(|(start, _)| {
        let rest = &code[*start..];
        has_word(&rest[..rest.find(')').unwrap_or(rest.len())], "Deserialize")
    });
    derives.flat_map(move |(start, _)| {
        let first = code[..start].matches('\n').count();
        let body = &code[start..start + end_of_item(&code[start..])];
        // A field with its own deserialization function is left to the reviewer.
        let own_ways: Vec<usize> =
            lines(body).filter(|(_, text)| has_word(text, "deserialize_with")).map(|(line, _)| line + 1).collect();
        lines(body)
            .filter(|(line, text)| TREES.iter().any(|tree| has_word(text, tree)) && !own_ways.contains(line))
            .map(move |(line, _)| first + line)
            .collect::<Vec<_>>()
    })
}

/// The end of the item after these attributes: its closing brace or a semicolon.
fn end_of_item(item: &str) -> usize {
    let mut depth = 0usize;
    for (at, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(code: &str) -> Vec<usize> {
        check("src/a.rs", code).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn readers_are_found_by_path_and_by_import() {
        assert_eq!(found("fn f() {\n serde_json::from_str(x); }"), [2]);
        assert_eq!(found("use serde_json::{Value,\n from_slice};"), [1]);
        assert_eq!(found("serde_json::from_value::<T>(x)\nserde_json::Deserializer::from_str(x)"), [1, 2]);
        assert!(found("use serde_json::{Map, Value, json};\nserde_json::to_string(x); json::from_str(x)").is_empty());
        assert!(check("tests/it/a.rs", "serde_json::from_str(x)").is_empty());
    }

    #[test]
    fn types_that_are_read_contain_no_tree() {
        assert_eq!(found("#[derive(Deserialize)]\nstruct A {\n a: Option<Value>,\n}"), [3]);
        assert_eq!(found("#[derive(Debug, serde::Deserialize)]\nstruct A(Vec<Map<String, X>>);"), [2]);
        assert!(
            found("#[derive(Deserialize)]\nstruct A { a: BTreeMap<String, RawValue> }\nstruct B { b: Value }")
                .is_empty()
        );
        assert!(found("#[derive(Serialize)]\nstruct A { a: Value }").is_empty());
        assert!(found("#[derive(Deserialize)]\nstruct A {\n #[serde(deserialize_with = x)]\n a: Value,\n}").is_empty());
    }

    #[test]
    fn an_entry_must_be_needed() {
        let (path, _) = ALLOWED[0];
        let findings = |text: &str| check_table(&[super::super::file(path, text)]).len();
        assert_eq!(findings("serde_json::from_str(x)"), ALLOWED.len() - 1);
        assert_eq!(findings("// serde_json::from_str(x)"), ALLOWED.len());
    }
}

//! Compares the keys in `docs/config.md` with the keys that the code reads.

use std::collections::BTreeSet;
use std::path::Path;

use super::document::{ConfigDocument, Section};
use super::sections;

const PAGE: &str = include_str!("../../docs/config.md");

/// The keys of the page: each heading names a table, each row below it a key. The part about drivers is generated.
fn written() -> BTreeSet<String> {
    let mut table = String::new();
    let mut keys = BTreeSet::new();
    for line in PAGE.lines().take_while(|line| *line != "## Drivers") {
        if let Some(heading) = line.strip_prefix("## `") {
            table = heading.trim_end_matches('`').trim_matches(['[', ']']).to_owned();
        } else if let Some(row) = line.strip_prefix("| `") {
            let (key, _) = row.split_once('`').unwrap();
            assert!(keys.insert(format!("{table}.{key}")), "`{table}.{key}` is there twice");
        }
    }
    keys
}

/// All keys that the code asks for if every table is present.
fn read() -> BTreeSet<String> {
    let text = super::tests::uncommented();
    let document = ConfigDocument::new(&text, &|_| None);
    let table = document.parse().unwrap();
    let mut root = Section::root(&document, &table);
    sections::config(&document, &mut root, Path::new("/srv"), None);
    document.known_keys()
}

#[test]
fn the_page_has_every_key_and_nothing_else() {
    let (written, read) = (written(), read());
    // Tables are headings.
    let is_table = |key: &&String| read.iter().any(|other| other.starts_with(&format!("{key}.")));
    let all: BTreeSet<_> = read.iter().map(|key| nameless(key)).collect();
    let missing: Vec<_> = read
        .iter()
        .filter(|key| !is_table(key))
        .map(|key| nameless(key))
        .filter(|key| !written.contains(key))
        .collect();
    let unknown: Vec<_> = written.difference(&all).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not in docs/config.md: {missing:?}; no keys: {unknown:?}");
    // Guards against a test that compares nothing.
    assert!(read.contains("server.tls.client-ca") && read.contains("grants.process.output"), "{read:?}");
}

/// The names of connections are free.
fn nameless(key: &str) -> String {
    match key.strip_prefix("connections.").and_then(|rest| rest.split_once('.')) {
        Some((_, key)) => format!("connections.NAME.{key}"),
        None => key.to_owned(),
    }
}

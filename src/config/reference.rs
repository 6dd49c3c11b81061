//! Compares `docs/config.md` with the code: its keys with those that are read, its defaults with what applies without a key, and
//! which keys are live with what a reload applies.

use std::collections::BTreeSet;
use std::path::Path;

use super::document::{ConfigDocument, Section};
use super::{Config, ConfigErrors, ConfigHandle, sections};

const PAGE: &str = include_str!("../../docs/config.md");

/// A row of a table of the page.
#[derive(Debug)]
struct Row {
    /// As in a file: `[hooks]` or `[[grants]]`.
    table: &'static str,
    key: &'static str,
    default: &'static str,
    about: &'static str,
    is_live: bool,
}

impl Row {
    /// Such as `server.tls.certificate`.
    fn name(&self) -> String {
        format!("{}.{}", self.table.trim_matches(['[', ']']), self.key)
    }
}

/// Each heading of the page names a table, each row below it a key. The part about drivers is generated.
fn rows() -> Vec<Row> {
    let (mut table, mut is_live) = ("", false);
    let mut rows = Vec::new();
    for line in PAGE.lines().take_while(|line| *line != "## Drivers") {
        if let Some(heading) = line.strip_prefix("## `") {
            (table, is_live) = (heading.trim_end_matches('`'), false);
        } else if line.starts_with("*Live.*") {
            is_live = true;
        } else if let Some(row) = line.strip_prefix("| `") {
            let (key, rest) = row.split_once("` | ").unwrap();
            let (default, about) = rest.split_once(" | ").unwrap();
            rows.push(Row { table, key, default, about, is_live: is_live || about.starts_with("*Live.*") });
        }
    }
    rows
}

/// The keys of the page.
fn written() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for row in rows() {
        assert!(keys.insert(row.name()), "`{}` is there twice", row.name());
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

/// Keys in place of others that are required: they are not compared with a file that has neither.
const INSTEAD: [&str; 3] = ["server.modules.component", "grants.endpoint", "grants.module"];

/// What must be beside a key for it to be valid or to matter: other tables, and other keys of its table.
fn beside(row: &Row) -> (&'static str, &'static [(&'static str, &'static str)]) {
    const TLS: &str = "[server.tls]\ncertificate = 'a'\nprivate-key = 'b'\n";
    // With two things that it opens: a grant needs one, whichever key is left out.
    const GRANT: &[(&str, &str)] =
        &[("model", "'a'"), ("phase", "'postCreate'"), ("read", "['a']"), ("secret", "['a']")];
    match (row.table, row.key) {
        ("[server]", "redirect-http") => (TLS, &[]),
        ("[server.tls]", _) => ("", &[("certificate", "'a'"), ("private-key", "'b'")]),
        ("[server.static]", _) => ("", &[("directory", "'a'")]),
        ("[server.cors]", _) => ("", &[("origins", "['https://a']")]),
        ("[[server.modules]]", _) => ("", &[("name", "'a'"), ("library", "'a'")]),
        ("[[server.endpoints]]", _) => ("", &[("name", "'a'"), ("path", "'/a'"), ("component", "'a'")]),
        ("[auth]", _) => ("[server]\nmount-address = '127.0.0.1:1'\n", &[]),
        ("[auth.oidc]", _) => ("", &[("issuer", "'https://a'"), ("audience", "'a'"), ("role", "'claims.a'")]),
        ("[telemetry]", _) => ("", &[("otlp", "'http://a'")]),
        ("[connections.NAME]", _) => ("", &[("driver", "'postgres'")]),
        ("[[grants]]", "amend") => ("", &[("model", "'a'"), ("phase", "'preCreate'"), ("read", "['a']")]),
        ("[[grants]]", _) => ("", GRANT),
        ("grants.process", _) => ("[[grants]]\nmodel = 'a'\nphase = 'postCreate'\n", &[("program", "'/usr/bin/a'")]),
        _ => ("", &[]),
    }
}

/// A value that is not the default.
fn other(row: &Row, name: &str) -> String {
    match name {
        "server.mount-address" | "server.redirect-http" => "'127.0.0.1:99'",
        "server.mount-path" | "server.endpoints.path" => "'/other'",
        "server.limits.trusted-proxies" => "['10.0.0.0/8']",
        "server.limits.hosts" => "['other.example.com']",
        "server.cors.origins" => "['https://other']",
        "server.workers" => "1001",
        "server.modules.kind" => "'zia'",
        "server.modules.config" => "{ other = 1 }",
        "server.endpoints.role" => "'admin'",
        "auth.mode" => "'open'",
        "auth.oidc.issuer" | "telemetry.otlp" => "'https://other'",
        "auth.oidc.role" | "auth.oidc.models" => "'claims.other'",
        "telemetry.headers" => "{ other = 'a' }",
        "telemetry.sample" => "0.5",
        "telemetry.trust-traceparent" => "'all'",
        "telemetry.log-format" => "'json'",
        "plugins.sha256" => "['0000000000000000000000000000000000000000000000000000000000000000']",
        "plugins.replace" | "grants.read" | "grants.write" | "grants.secret" | "grants.process.args" => "['other']",
        "hooks.isolation" => "'reuse'",
        "hooks.v8.reset" => "'fork'",
        "driver-secure-storage.private-key" => "'env:OTHER'",
        "grants.phase" => "'postUpdate'",
        "grants.http" => "['https://other/*']",
        "grants.process" => "[{ program = '/usr/bin/other' }]",
        "grants.timeout" => "'3 s'",
        "grants.memory" => "'3 MiB'",
        "grants.process.program" => "'/usr/bin/other'",
        "grants.process.env" => "{ OTHER = true }",
        _ => match row.default.trim_matches('`') {
            "true" => "false",
            "false" => "true",
            number if number.parse::<u32>().is_ok() => return (number.parse::<u32>().unwrap() + 1).to_string(),
            amount if amount.ends_with("s'") && amount.contains(' ') => "'7 s'",
            amount if amount.ends_with("iB'") => "'17 MiB'",
            _ => "'other'",
        },
    }
    .to_owned()
}

/// The file with this value for the row's key, or without the key.
fn file(row: &Row, value: Option<&str>) -> String {
    let (before, beside) = beside(row);
    let table = match row.table {
        "grants.process" => "[[grants.process]]".to_owned(),
        table => table.replace("NAME", "main"),
    };
    let lines = beside.iter().filter(|(key, _)| *key != row.key).map(|(key, value)| (*key, *value));
    let lines = lines.chain(value.map(|value| (row.key, value)));
    format!("{before}{table}\n") + &lines.map(|(key, value)| format!("{key} = {value}\n")).collect::<String>()
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "config.toml", Path::new("/srv"), None, &|name| (name == "HOME").then(|| "/home/a".to_owned()))
}

/// What a server with the first configuration does about the second one: which keys apply at once, and which after a restart.
#[track_caller]
fn differences(old: &str, new: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let read = |text: &str| parse(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let reloaded = ConfigHandle::new(read(old)).replace(read(new));
    (reloaded.applied, reloaded.restart)
}

#[test]
fn defaults_are_those_of_the_page() {
    // Words for what no value says: the key is left out, and there is nothing to compare with.
    const WITHOUT: [&str; 4] = ["none", "all models", "that of `[hooks]`", "`OTEL_EXPORTER_OTLP_HEADERS`"];
    let mut compared = 0;
    for row in rows().into_iter().filter(|row| !INSTEAD.contains(&&*row.name())) {
        let name = row.name();
        let absent = file(&row, None);
        let literal = row.default.rsplit_once("else ").map_or(row.default, |(_, literal)| literal);
        if literal.starts_with("required") {
            let errors = parse(&absent).expect_err(&name).lines().collect::<Vec<_>>().concat();
            assert!(errors.contains(row.key), "`{name}` is required, and without it: {errors}");
        } else if WITHOUT.contains(&literal) {
            assert!(parse(&absent).is_ok(), "{name}");
        } else {
            let literal = match literal.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
                Some(path) if path.starts_with('~') => format!("'{}'", path.replace('~', "/home/a")),
                Some(literal) => literal.to_owned(),
                None => panic!("`{name}`: {literal} is neither a value in backticks nor a known word"),
            };
            // A driver's path is a default of its own.
            let path = row.about.strip_prefix("With `").and_then(|rest| rest.split_once('`'));
            let written = file(&row, Some(&literal)) + path.map_or("", |(path, _)| path);
            assert_eq!(differences(&absent, &written), (vec![], vec![]), "`{name}` without a value, and as {literal}");
            compared += 1;
        }
    }
    assert!(compared > 35, "{compared}");
}

#[test]
fn keys_are_live_where_the_page_says_so() {
    for row in rows().into_iter().filter(|row| !INSTEAD.contains(&&*row.name())) {
        let name = row.name();
        let value = match row.default.starts_with("required") {
            true => beside(&row).1.iter().find(|(key, _)| *key == row.key).map(|(_, value)| *value),
            false => None,
        };
        let changed = differences(&file(&row, value), &file(&row, Some(&other(&row, &name))));
        let covers =
            |key: &&str| name == **key || name.starts_with(&format!("{key}.")) || name.starts_with(&format!("{key}-"));
        let (same, others) = if row.is_live { (&changed.0, &changed.1) } else { (&changed.1, &changed.0) };
        // A module of the other kind needs a bridge, which is started with the server.
        let is_right = others.is_empty() && same.iter().any(covers) || name == "server.modules.kind";
        assert!(is_right, "`{name}`, live: {}; applied {:?}, after a restart {:?}", row.is_live, changed.0, changed.1);
    }
}

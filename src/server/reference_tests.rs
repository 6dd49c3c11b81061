//! `docs/rest.md` says what the code does: its tables are compared with the code's, in both directions.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use snaphook_driver::json;

use super::problem::ProblemType;
use super::routes;
use crate::catalog::filter::OPERATORS;

const PAGE: &str = include_str!("../../docs/rest.md");
const COMPONENTS: &str = include_str!("openapi/components.json");

/// The rows of the first table below a heading whose first column is named so, as the text of their cells.
fn table(heading: &str, column: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = PAGE.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no `{heading}`"));
    let mut lines = section.lines().skip_while(|line| !line.starts_with(&format!("| {column} |")));
    assert!(lines.next().is_some() && lines.next().is_some(), "no table of `{column}` below `{heading}`");
    let rows: Vec<Vec<&str>> = lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" |").map(str::trim).collect())
        .collect();
    assert!(!rows.is_empty());
    rows
}

/// Both say the same, and neither says anything twice.
#[track_caller]
fn agree(what: &str, page: Vec<String>, code: Vec<String>) {
    let set = |rows: &[String]| rows.iter().cloned().collect::<BTreeSet<_>>();
    let (said, done) = (set(&page), set(&code));
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>().join("\n  ");
    assert!(
        said == done && page.len() == said.len(),
        "docs/rest.md, {what}:\nonly on the page:\n  {}\nonly in the code:\n  {}",
        only(&said, &done),
        only(&done, &said)
    );
}

#[test]
fn operations() {
    let page = table("## Operations", "operation").iter().map(|row| format!("| {} |", row.join(" | "))).collect();
    let table = routes::table();
    let described = routes::described(&table);
    let code = described.iter().map(|described| {
        let role = described.needs.role().map_or(String::new(), |role| role.to_string());
        let (method, template) = (described.method, described.template);
        format!("| `{method} {template}` | {role} | {} |", (described.describe)().summary)
    });
    agree("operations", page, code.collect());
}

#[test]
fn operators() {
    let page = table("## Lists", "operator").iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    agree("operators", page, OPERATORS.split(' ').map(str::to_owned).collect());
}

#[test]
fn problem_types() {
    let page = table("### Problem types", "type").iter().map(|row| format!("{} {}", row[0], row[1])).collect();
    let code = ProblemType::ALL.iter().filter(|kind| **kind != ProblemType::Internal);
    let code = code.map(|kind| {
        let (name, _, status) = kind.describe();
        format!("`{name}` {}", status.as_u16())
    });
    agree("problem types", page, code.collect());
}

#[test]
fn headers() {
    let page = table("## Headers", "header").iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    let components = json::parse(COMPONENTS).expect("JSON");
    let parameters = components["parameters"].as_object().expect("an object").values();
    let sent = parameters.filter(|parameter| parameter["in"] == "header").map(|parameter| &parameter["name"]);
    let sent = sent.filter_map(Value::as_str).map(str::to_owned);
    let returned = components["headers"].as_object().expect("an object").keys().cloned();
    // Of the security scheme, and of what is no operation.
    let others = ["Authorization", "Allow"].map(str::to_owned);
    agree("headers", page, sent.chain(returned).chain(others).collect());
}

#[test]
fn limits() {
    let [default, most] = ["LIMIT_DEFAULT", "LIMIT_MAX"].map(|name| constant("src/server/list.rs", name));
    let mut code =
        vec![format!("instances, events or errors of one page: {} if absent, {} at most", shown(default), shown(most))];
    for (what, file, name, unit) in [
        ("conditions of one filter", "src/catalog/filter.rs", "CONDITIONS_MAX", 1),
        ("values of one `in` or `nin`", "src/catalog/filter.rs", "VALUES_MAX", 1),
        ("values of one filter", "src/catalog/filter.rs", "ALL_VALUES_MAX", 1),
        ("`or` within `or`, in a URL", "src/server/query.rs", "OR_DEPTH_MAX", 1),
        ("`and`, `or` and `not` within each other, in JSON", "src/catalog/filter.rs", "DEPTH_MAX", 1),
        ("keys of `sort`", "src/catalog/query.rs", "SORT_KEYS_MAX", 1),
        ("paths of `fields`", "src/server/projection.rs", "FIELDS_MAX", 1),
        ("paths of `expand`", "src/engine/history/expand.rs", "PATHS_MAX", 1),
        ("references that follow each other in one path of `expand`", "src/engine/history/expand.rs", "DEPTH_MAX", 1),
        (
            "bytes of a path, and of a pattern of `like` or `ilike`",
            "src/catalog/path_target.rs",
            "PATTERN_BYTES_MAX",
            1,
        ),
        ("characters of a model's id", "sdk/driver/src/limits.rs", "MODEL_ID_BYTES_MAX", 1),
        ("characters of an instance's id", "sdk/driver/src/limits.rs", "INSTANCE_ID_BYTES_MAX", 1),
        ("levels of arrays and objects in data", "sdk/driver/src/limits.rs", "NESTING_MAX", 1),
        ("bytes of an instance's data", "sdk/driver/src/limits.rs", "PAYLOAD_BYTES_MAX", 1),
        ("bytes of a property's name", "sdk/driver/src/limits.rs", "PROPERTY_NAME_BYTES_MAX", 1),
        ("bytes of a number", "sdk/driver/src/limits.rs", "NUMBER_BYTES_MAX", 1),
        ("lists in `indexes`, and in `unique`", "sdk/driver/src/limits.rs", "LISTS_MAX", 1),
        ("properties of one list", "sdk/driver/src/limits.rs", "LIST_LENGTH_MAX", 1),
        ("bytes of a schema", "src/catalog/definition.rs", "SCHEMA_BYTES_MAX", 1),
        ("subschemas of a schema", "schema/src/prepare.rs", "SUBSCHEMAS_MAX", 1),
        ("levels of references in a schema", "schema/src/prepare.rs", "REFERENCES_DEEP_MAX", 1),
        ("hooks of one chain", "src/engine/definitions/bindings.rs", "CHAIN_MAX", 1),
        ("operations of a batch", "src/engine/batch_input.rs", "OPERATIONS_MAX", 1),
        ("errors that an import lists", "src/engine/writes/import.rs", "ERRORS_MAX", 1),
        ("instances that `incompatible` lists", "src/engine/definitions/mod.rs", "LISTED_MAX", 1),
        ("characters of an `Idempotency-Key`", "src/server/request.rs", "IDEMPOTENCY_KEY_LENGTH_MAX", 1),
        ("hours that an `Idempotency-Key` is remembered", "src/engine/idempotency.rs", "REMEMBERED_MILLIS", 3_600_000),
        ("characters of an `X-Request-Id`", "src/server/request_id.rs", "LENGTH_MAX", 1),
        ("seconds of `Prefer: wait`", "src/server/prefer.rs", "WAIT_SECONDS_MAX", 1),
        ("seconds that `Snaphook-Min-Position` waits", "src/engine/tail.rs", "SOON", 1),
        ("seconds between two comments of a stream", "src/server/sse.rs", "HEARTBEAT", 1),
        ("seconds without a byte of a body", "src/server/body.rs", "PATIENCE", 1),
        ("bytes of a body in each further second, at least", "src/server/body.rs", "BYTES_PER_SECOND", 1),
    ] {
        code.push(format!("{what}: {}", shown(constant(file, name) / unit)));
    }
    let page = table("## Limits", "limit").iter().map(|row| format!("{}: {}", row[0], row[1])).collect();
    agree("limits", page, code);
}

/// A constant as its file has it: a product of numbers, or seconds. Most are nobody's business but their module's.
fn constant(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a source file");
    let start = format!("const {name}: ");
    let line = text
        .lines()
        .find_map(|line| line.trim_start_matches("pub(super) ").trim_start_matches("pub ").strip_prefix(&*start));
    let line = line.unwrap_or_else(|| panic!("{file} has no constant `{name}`"));
    let (_, value) = line.split_once(" = ").expect("a value");
    let value = value.trim_end_matches(';').trim_start_matches("Duration::from_secs(").trim_end_matches(')');
    let factors = value.split(" * ").map(|factor| factor.replace('_', "").parse::<u64>());
    factors.map(|factor| factor.unwrap_or_else(|_| panic!("`{name}` of {file} is `{value}`"))).product()
}

/// With commas between thousands.
fn shown(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", shown(number / 1000), number % 1000),
    }
}

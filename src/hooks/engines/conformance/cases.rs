//! The table of cases: what is asked of a hook, under which grants, and what must come of it.

use super::subject::Task;
use crate::config::Phase;
use crate::hooks::context::{FailureCause, LogLevel};

/// One case.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) task: Task,
    pub(super) phase: Phase,
    /// Lines of the hook's grant. `{url}` is the address of the tests' HTTP server and `{cat}` the path of the program, here and
    /// in `id`.
    pub(super) grants: &'static str,
    pub(super) timeout: &'static str,
    pub(super) memory: &'static str,
    /// The instance's id: what some tasks need beside the data.
    pub(super) id: &'static str,
    pub(super) before: Option<&'static str>,
    /// [`LARGE`] and [`DEEP`] stand for data that is as large, and nested as deep, as possible.
    pub(super) after: Option<&'static str>,
    pub(super) expected: Expected,
}

/// What must come of a case.
pub(super) enum Expected {
    Accept,
    /// This data, digit for digit, whatever the order of members.
    Amend(&'static str),
    /// The data that came with `"x":1` more.
    Added,
    Reject(&'static str, &'static [(&'static str, &'static str)]),
    /// One of these causes, and this in the message.
    Failed(&'static [FailureCause], &'static str),
    /// This cause, and this limit by name.
    Limit(FailureCause, &'static str),
    /// Accepted, with these lines in its log.
    Log(&'static [&'static str]),
    /// The same with levels.
    Levels(&'static [(LogLevel, &'static str)]),
    /// Accepted; the hook logged the code of its error.
    Refused(&'static str),
    /// The same with `denied`, and these words in the hook's log, for whoever grants.
    Denied(&'static str),
}

use self::Expected::{Accept, Added, Amend, Denied, Failed, Levels, Limit, Log, Refused, Reject};
use self::FailureCause::{Exception, HostCalls, Memory, Output, Stack, Timeout, Trap};
use self::Phase::{PostCreate, PostDelete, PreCreate, PreDelete, PreUpdate};

/// Data of 8 MiB but for what a hook adds: long and short strings, and many small objects.
pub(super) const LARGE: &str = "8 MiB";

/// Objects and lists within each other to the deepest level that is possible.
pub(super) const DEEP: &str = "120 levels";

const PRE: Row = Row {
    name: "",
    task: Task::Accept,
    phase: PreCreate,
    grants: "",
    timeout: "30 s",
    memory: "64 MiB",
    id: "i-1",
    before: None,
    after: Some("{}"),
    expected: Accept,
};
const POST: Row = Row { phase: PostCreate, ..PRE };

pub(super) const VERDICTS: &[Row] = &[
    Row { name: "verdict/accept", ..PRE },
    Row { name: "verdict/accept-delete", phase: PreDelete, before: Some("{}"), after: None, ..PRE },
    Row { name: "verdict/done", ..POST },
    Row { name: "verdict/amend", task: Task::Amend, grants: "amend = true", expected: Amend(r#"{"n":1}"#), ..PRE },
    Row {
        name: "verdict/amend-denied",
        task: Task::Amend,
        expected: Failed(&[FailureCause::Amend], "amend = true"),
        ..PRE
    },
    // Giving back what came is no change, so it needs no grant.
    Row { name: "verdict/same", task: Task::Same, after: Some(r#"{"a": [1, "b"]}"#), ..PRE },
    Row { name: "verdict/reject", task: Task::Reject, expected: Reject("no", &[("/a", "bad")]), ..PRE },
    Row {
        name: "verdict/reject-update",
        task: Task::Reject,
        phase: PreUpdate,
        before: Some("{}"),
        expected: Reject("no", &[("/a", "bad")]),
        ..PRE
    },
    Row { name: "verdict/fail", task: Task::Fail, expected: Failed(&[Exception], "oops"), ..POST },
    Row { name: "verdict/crash", task: Task::Crash, expected: Failed(&[Exception, Trap], ""), ..PRE },
    Row { name: "verdict/crash-post", task: Task::Crash, expected: Failed(&[Exception, Trap], ""), ..POST },
];

const READ: &str = "read = ['item']";
const WRITE: &str = "write = ['note']";

/// In order: what one writes, the next one finds.
pub(super) const CAPABILITIES: &[Row] = &[
    Row {
        name: "log/levels",
        task: Task::Log,
        expected: Levels(&[
            (LogLevel::Debug, "d"),
            (LogLevel::Info, "i"),
            (LogLevel::Warn, "w"),
            (LogLevel::Error, "e"),
        ]),
        ..PRE
    },
    Row { name: "read/get", task: Task::ReadGet, id: "1", grants: READ, expected: Log(&[r#"{"a":1}"#]), ..PRE },
    Row { name: "read/get-absent", task: Task::ReadGet, id: "none", grants: READ, expected: Log(&["absent"]), ..PRE },
    Row { name: "read/get-denied", task: Task::ReadGet, id: "1", expected: Denied(READ), ..PRE },
    Row {
        name: "read/get-other",
        task: Task::ReadGet,
        id: "1",
        grants: "read = ['other']",
        expected: Denied(READ),
        ..PRE
    },
    Row { name: "read/query", task: Task::ReadQuery, grants: READ, expected: Log(&["1 1"]), ..PRE },
    Row { name: "read/query-denied", task: Task::ReadQuery, expected: Denied(READ), ..PRE },
    Row { name: "read/event", task: Task::ReadEvent, id: "1", grants: READ, expected: Log(&["present"]), ..POST },
    Row {
        name: "read/event-absent",
        task: Task::ReadEvent,
        id: "999",
        grants: READ,
        expected: Log(&["absent"]),
        ..POST
    },
    Row { name: "read/event-denied", task: Task::ReadEvent, id: "1", expected: Denied(READ), ..POST },
    Row {
        name: "write/create",
        task: Task::WriteCreate,
        id: "n1",
        grants: WRITE,
        expected: Log(&[r#"{"a":1}"#]),
        ..POST
    },
    Row {
        name: "write/update",
        task: Task::WriteUpdate,
        id: "n1",
        grants: WRITE,
        expected: Log(&[r#"{"a":2}"#]),
        ..POST
    },
    Row {
        name: "write/update-absent",
        task: Task::WriteUpdate,
        id: "n9",
        grants: WRITE,
        expected: Refused("not-found"),
        ..POST
    },
    Row {
        name: "write/delete",
        task: Task::WriteDelete,
        id: "n1",
        // Without a read grant.
        grants: WRITE,
        expected: Log(&["null"]),
        ..POST
    },
    Row {
        name: "write/create-denied",
        task: Task::WriteCreate,
        id: "n1",
        grants: READ,
        expected: Denied(WRITE),
        ..POST
    },
    Row {
        name: "write/update-denied",
        task: Task::WriteUpdate,
        id: "n1",
        grants: READ,
        expected: Denied(WRITE),
        ..POST
    },
    Row {
        name: "write/delete-denied",
        task: Task::WriteDelete,
        id: "n1",
        grants: READ,
        expected: Denied(WRITE),
        ..POST
    },
    Row {
        name: "write/never-before",
        task: Task::WriteCreate,
        id: "n1",
        grants: WRITE,
        expected: Denied("no grant can open `write` to phase preCreate"),
        ..PRE
    },
    Row {
        name: "http/send",
        task: Task::HttpSend,
        id: "{url}/a?b=%C3%BC",
        grants: "http = ['POST {url}/*']",
        expected: Log(&["201 POST /a?b=%C3%BC 1 hi"]),
        ..POST
    },
    Row { name: "http/denied", task: Task::HttpSend, id: "{url}/a", expected: Denied("http = ["), ..POST },
    Row {
        name: "http/other-method",
        task: Task::HttpSend,
        id: "{url}/a",
        grants: "http = ['GET {url}/*']",
        expected: Denied("http = ["),
        ..POST
    },
    Row {
        name: "http/never-before",
        task: Task::HttpSend,
        id: "{url}/a",
        grants: "http = ['POST {url}/*']",
        expected: Denied("no grant can open `http` to phase preCreate"),
        ..PRE
    },
    #[cfg(unix)]
    Row {
        name: "process/run",
        task: Task::ProcessRun,
        id: "{cat}",
        grants: "process = [{ program = '{cat}', args = ['-'] }]",
        expected: Log(&["0 in"]),
        ..POST
    },
    Row { name: "process/denied", task: Task::ProcessRun, id: "{cat}", expected: Denied("process = ["), ..POST },
    Row {
        name: "process/never-before",
        task: Task::ProcessRun,
        id: "{cat}",
        grants: "process = [{ program = '{cat}', args = ['-'] }]",
        expected: Denied("no grant can open `process` to phase preCreate"),
        ..PRE
    },
    Row {
        name: "secret/get",
        task: Task::SecretGet,
        id: "key",
        grants: "secret = ['key']",
        // Only the right value is masked.
        expected: Log(&["***"]),
        ..PRE
    },
    Row {
        name: "secret/absent",
        task: Task::SecretGet,
        id: "other",
        grants: "secret = ['*']",
        expected: Refused("not-found"),
        ..PRE
    },
    Row { name: "secret/denied", task: Task::SecretGet, id: "key", expected: Denied("secret = ['key']"), ..PRE },
];

pub(super) const LIMITS: &[Row] = &[
    Row {
        name: "limit/timeout",
        task: Task::Loop,
        timeout: "300 ms",
        expected: Limit(Timeout, "timeout 300 ms"),
        ..PRE
    },
    Row {
        name: "limit/timeout-post",
        task: Task::Loop,
        timeout: "300 ms",
        expected: Limit(Timeout, "timeout 300 ms"),
        ..POST
    },
    Row { name: "limit/memory", task: Task::Grow, expected: Limit(Memory, "memory 64 MiB"), ..PRE },
    Row { name: "limit/stack", task: Task::Recurse, expected: Limit(Stack, "stack 1 MiB"), ..PRE },
    Row { name: "limit/output", task: Task::Flood, memory: "1 GiB", expected: Limit(Output, "output 16 MiB"), ..PRE },
    Row { name: "limit/log-lines", task: Task::Talk, expected: Limit(Output, "log 1000 lines"), ..PRE },
    Row { name: "limit/log-bytes", task: Task::Shout, expected: Limit(Output, "log 64 KiB"), ..PRE },
    Row {
        name: "limit/host-calls",
        task: Task::Ask,
        grants: "read = ['*']",
        expected: Limit(HostCalls, "host calls 10000"),
        ..PRE
    },
];

/// Outside the first plane, combining, not composed, right to left, zero-width; escapes of NUL, of a pair of surrogates
/// and of a slash.
#[expect(clippy::invisible_characters, reason = "they are what is tested")]
const UNICODE: &str = r#"{"😀":"𝔘n\u0000i\ud83d\ude00\/","e\u0301":"é é","עב":["‏","\u200b​","￿"],"":"\u001f\t\""}"#;

const NUMBERS: &str = r#"{"big":9007199254740993,"long":12345678901234567890.123456789012345678901234567890,"huge":1e400,"tiny":-1e-400,"tail":0.1000000000000000055511151231257827021181583404541015625,"one":1.0,"zero":-0.0,"list":[9007199254740993.5,{"n":18446744073709551616}]}"#;

/// The same numbers in other words; each keeps its own.
const SPELLINGS: &str = r#"{"zero":[0,-0,0.0,-0.0,0e0,-0E-9],"one":[1,1.0,1.00,1e0,1E+0,10e-1],"edge":[9007199254740991,9007199254740992,9007199254740993,-9223372036854775809,18446744073709551616],"far":[1e308,1.8e308,-1E+400,5e-324,1e-500,123456789012345678901234567890e-20]}"#;

/// Names that languages and libraries take for marks of their own.
const NAMES: &str = r##"{"__proto__":{"__proto__":null,"a":1},"constructor":{"prototype":{"x":1}},"toJSON":"x","then":1,"valueOf":null,"toString":[],"hasOwnProperty":true,"length":-1,"0":0,"10":1,"9":2,"01":3,"":{"":[""]},"$ref":"#","__class__":"x","digits":{"toJSON":{"toJSON":0}}}"##;
const PROTOTYPE: &str = r#"{"__proto__":1}"#;
const RAW: &str = r#"{"$serde_json::private::RawValue":"{\"a\":1}"}"#;
const NUMBER: &str = r#"{"$serde_json::private::Number":"12"}"#;
const RAW_INSIDE: &str = r#"{"a":{"$serde_json::private::RawValue":"[1"},"b":[{"$serde_json::private::Number":"1e9"},{"$serde_json::private::Number":1,"c":2}],"$serde_json::private::RawValue":null,"d":[{"$serde_json::private::RawValue":"[[1]]"}]}"#;

/// NUL, quotes and what may end a line, as names and as values.
const ESCAPES: &str = r#"{"a\u0000b":"\u0000","\\\"\/\b\f\n\r\t":"\\u0000\u007f\u0080","\u2028\u2029":"\u2028","\ud83d\ude00":"\uD83D\uDE00\uffff","{\"":"}]","\u007b":"{"}"#;

pub(super) const DATA: &[Row] = &[
    Row {
        name: "context/update",
        task: Task::Tell,
        phase: PreUpdate,
        id: "ü😀e\u{301}",
        before: Some(r#"{"a":1}"#),
        after: Some(r#"{"a":2}"#),
        expected: Log(&[
            "preUpdate item@1 ü😀e\u{301}",
            "r-1 1970-01-01T00:00:00.000Z 1",
            r#"before {"a":1}"#,
            r#"after {"a":2}"#,
            "event none",
        ]),
        ..PRE
    },
    Row {
        name: "context/deleted",
        task: Task::Tell,
        phase: PostDelete,
        before: Some(r#"{"a":1}"#),
        after: None,
        expected: Log(&[
            "postDelete item@1 i-1",
            "r-1 1970-01-01T00:00:00.000Z 1",
            r#"before {"a":1}"#,
            "after none",
            "event 7 e-7",
        ]),
        ..PRE
    },
    Row { name: "unicode/same", task: Task::Same, after: Some(UNICODE), ..PRE },
    Row {
        name: "unicode/added",
        task: Task::Add,
        grants: "amend = true",
        after: Some(UNICODE),
        expected: Added,
        ..PRE
    },
    Row { name: "numbers/same", task: Task::Same, after: Some(NUMBERS), ..PRE },
    Row {
        name: "numbers/added",
        task: Task::Add,
        grants: "amend = true",
        after: Some(NUMBERS),
        expected: Added,
        ..PRE
    },
    Row { name: "hostile/spellings-same", task: Task::Same, after: Some(SPELLINGS), ..PRE },
    Row {
        name: "hostile/spellings-added",
        task: Task::Add,
        grants: "amend = true",
        after: Some(SPELLINGS),
        expected: Added,
        ..PRE
    },
    Row { name: "hostile/names-same", task: Task::Same, after: Some(NAMES), ..PRE },
    Row {
        name: "hostile/names-added",
        task: Task::Add,
        grants: "amend = true",
        after: Some(NAMES),
        expected: Added,
        ..PRE
    },
    Row { name: "hostile/prototype-same", task: Task::Same, after: Some(PROTOTYPE), ..PRE },
    Row {
        name: "hostile/prototype-added",
        task: Task::Add,
        grants: "amend = true",
        after: Some(PROTOTYPE),
        expected: Added,
        ..PRE
    },
    Row { name: "hostile/raw-same", task: Task::Same, after: Some(RAW), ..PRE },
    Row {
        name: "hostile/raw-added",
        task: Task::Add,
        grants: "amend = true",
        after: Some(RAW),
        expected: Added,
        ..PRE
    },
    Row { name: "hostile/number-same", task: Task::Same, after: Some(NUMBER), ..PRE },
    Row {
        name: "hostile/number-added",
        task: Task::Add,
        grants: "amend = true",
        after: Some(NUMBER),
        expected: Added,
        ..PRE
    },
    Row { name: "hostile/raw-inside-same", task: Task::Same, after: Some(RAW_INSIDE), ..PRE },
    Row {
        name: "hostile/raw-inside-added",
        task: Task::Add,
        grants: "amend = true",
        after: Some(RAW_INSIDE),
        expected: Added,
        ..PRE
    },
    Row { name: "hostile/escapes-same", task: Task::Same, after: Some(ESCAPES), ..PRE },
    Row {
        name: "hostile/escapes-added",
        task: Task::Add,
        grants: "amend = true",
        after: Some(ESCAPES),
        expected: Added,
        ..PRE
    },
    Row { name: "hostile/deep-same", task: Task::Same, after: Some(DEEP), ..PRE },
    Row {
        name: "hostile/deep-added",
        task: Task::Add,
        grants: "amend = true",
        after: Some(DEEP),
        expected: Added,
        ..PRE
    },
    // JavaScript has the data several times, as text and as values.
    Row { name: "large/same", task: Task::Same, memory: "256 MiB", after: Some(LARGE), ..PRE },
    Row {
        name: "large/added",
        task: Task::Add,
        memory: "256 MiB",
        grants: "amend = true",
        after: Some(LARGE),
        expected: Added,
        ..PRE
    },
];

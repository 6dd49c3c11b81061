//! Programs: arguments are passed as text, a grant covers one real file, and no process is left behind.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Arena;
use super::calm::Bystander;
use crate::support::{Client, Server, eventually};
use crate::workbench::{bind_post, grant, once, open_model, react};

/// A folder that unprivileged programs can access.
struct Folder {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Folder {
    fn new() -> Folder {
        let directory = tempfile::tempdir().expect("a folder");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("opened");
        let path = fs::canonicalize(directory.path()).expect("a path");
        Folder { _directory: directory, path }
    }

    /// Writes a shell script, which cannot start other programs.
    fn script(&self, name: &str, text: &str) -> String {
        let path = self.path.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        shown(&path)
    }
}

fn shown(path: &Path) -> String {
    path.to_str().expect("a text").to_owned()
}

/// Runs the program that the data names.
const RUNS: &str = "try { return await run(after.program, after.args ?? [], { stdin: after.stdin, env: after.env, timeout: after.timeout }); } \
                    catch (error) { return { code: error.code, message: error.message }; }";

struct Case {
    server: Server,
    api: Client,
}

impl Case {
    /// `process`: the entries of the grant.
    fn new(process: &str) -> Case {
        let server = Server::start_with(once(grant("runner", "postCreate", &format!("process = [{process}]"))));
        let api = server.client();
        open_model(&api, "runner");
        bind_post(&api, "runner", RUNS);
        Case { server, api }
    }

    fn run(&self, data: Value) -> Value {
        react(&self.api, "runner", &data)
    }
}

/// Processes whose command line contains `part`.
fn processes_with(part: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(part)).collect()
}

/// Waits for killed processes to disappear.
#[track_caller]
fn nothing_is_left(server: &Server, part: &str) {
    eventually("the programs are gone", || processes_with(part).is_empty().then_some(()));
    eventually("the server has no children", || server.children().is_empty().then_some(()));
}

#[test]
fn arguments_are_text() {
    let folder = Folder::new();
    let victim = folder.path.join("victim");
    fs::write(&victim, "").expect("written");
    let program = folder.script("echo", r#"printf '%s' "$1""#);
    let case = Case::new(&format!("{{ program = '{program}', args = ['*'] }}"));
    let rm = format!("rm -f {}", victim.display());
    let args = [
        format!("; {rm}"),
        format!("$({rm})"),
        format!("`{rm}`"),
        format!("x\n{rm}\n"),
        format!("| {rm}"),
        format!("&& {rm}"),
        format!("'; {rm}; '"),
        format!("\"; {rm}; \""),
        format!("$(<{})", victim.display()),
        "${IFS}".to_owned(),
        "*".to_owned(),
        "~".to_owned(),
        "%s%n".to_owned(),
        "\u{1b}[31m".to_owned(),
        "".to_owned(),
        " ".to_owned(),
        "\u{202e}".to_owned(),
        "-".to_owned(),
    ];
    let bystander = Bystander::new(&case.server);
    bystander.stays_calm("arguments", || {
        for arg in &args {
            assert_eq!(
                case.run(json!({"program": program, "args": [arg]})),
                json!({"code": 0, "stdout": arg, "stderr": ""})
            );
        }
    });
    assert!(victim.exists());
}

#[test]
fn what_does_not_fit_the_grant_is_denied() {
    let folder = Folder::new();
    let program = folder.script("echo", "echo ran");
    let folder_path = shown(&folder.path);
    let case =
        Case::new(&format!("{{ program = '{program}', args = ['a*', '*'], env = {{ LANG = 'C', TITLE = true }} }}"));
    assert_eq!(case.run(json!({"program": program, "args": ["ab", "c"], "env": {"TITLE": "t"}}))["stdout"], "ran\n");
    let denied = [
        json!({"program": program, "args": []}),
        json!({"program": program, "args": ["a"]}),
        json!({"program": program, "args": ["a", "b", "c"]}),
        json!({"program": program, "args": ["b", "b"]}),
        json!({"program": program, "args": ["a", "-rf"]}),
        json!({"program": program, "args": ["a", "--help"]}),
        json!({"program": program, "args": ["a", "/etc/passwd"]}),
        json!({"program": program, "args": ["a", "../x"]}),
        json!({"program": program, "args": ["a", "x/../../y"]}),
        json!({"program": program, "args": ["a/../b", "x"]}),
        json!({"program": program, "args": ["a", "b"], "env": {"LANG": "x"}}),
        json!({"program": program, "args": ["a", "b"], "env": {"LD_PRELOAD": "/tmp/x.so"}}),
        json!({"program": program, "args": ["a", "b"], "env": {"TITLE": "t", "PATH": "/tmp"}}),
        json!({"program": "/bin/sh", "args": ["a", "b"]}),
        json!({"program": "echo", "args": ["a", "b"]}),
        json!({"program": "./echo", "args": ["a", "b"]}),
        json!({"program": "../../../../../bin/sh", "args": ["a", "b"]}),
        json!({"program": format!("{folder_path}/./echo"), "args": ["a", "b"]}),
        json!({"program": format!("{folder_path}//echo"), "args": ["a", "b"]}),
        json!({"program": format!("{folder_path}/x/../echo"), "args": ["a", "b"]}),
        json!({"program": format!("{program} "), "args": ["a", "b"]}),
        json!({"program": format!("{program}; /bin/sh"), "args": ["a", "b"]}),
        json!({"program": "", "args": ["a", "b"]}),
    ];
    let bystander = Bystander::new(&case.server);
    bystander.stays_calm("denied programs", || {
        for data in &denied {
            let answer = case.run(data.clone());
            assert_eq!(answer["code"], "denied", "{data}: {answer}");
        }
    });
    let invalid = [
        json!({"program": format!("{program}\0"), "args": ["a", "b"]}),
        json!({"program": program, "args": ["a", "b\0c"]}),
        json!({"program": program, "args": ["a", {"x": 1}]}),
        json!({"program": program, "args": "a b"}),
        json!({"program": 7, "args": []}),
    ];
    for data in invalid {
        let answer = case.run(data.clone());
        assert!(answer["code"] == "invalid" || answer["code"] == "denied", "{data}: {answer}");
    }
    let answer = case.run(json!({"program": program, "args": ["a", "x".repeat(100_000)]}));
    assert_eq!(answer["code"], "too-large", "{answer}");
}

#[test]
fn a_link_is_not_the_program() {
    let folder = Folder::new();
    let program = folder.script("real", "echo ran");
    let link = folder.path.join("link");
    symlink(&program, &link).expect("a link");
    let directory = folder.path.join("directory");
    symlink(&folder.path, &directory).expect("a link");
    let through = directory.join("real");
    for path in [&link, &through] {
        let file = folder.path.join("config.toml");
        let table =
            grant("runner", "postCreate", &format!("process = [{{ program = '{}', args = [] }}]", path.display()));
        fs::write(&file, format!("[auth]\nmode = 'open'\n{table}")).expect("written");
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_snaphook"));
        let output = check.arg("check").arg("--config").arg(&file).output().expect("a command");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(":3: `grants.process.program` is `") && said.contains("a symbolic link"), "{said}");
        assert!(said.contains(&format!("expected the real path `{program}`")), "{said}");
    }
    // A program that is later replaced by a link is rejected too.
    let later = folder.script("later", "echo first");
    let case = Case::new(&format!("{{ program = '{later}', args = [] }}"));
    assert_eq!(case.run(json!({"program": later}))["stdout"], "first\n");
    fs::remove_file(&later).expect("removed");
    symlink("/bin/sh", &later).expect("a link");
    assert_eq!(case.run(json!({"program": later}))["code"], "denied");
}

#[test]
fn nothing_of_the_server_is_passed_on() {
    let folder = Folder::new();
    let env = shown(&fs::canonicalize("/usr/bin/env").expect("a program"));
    // The shell itself keeps the script open as 10.
    let descriptors = folder.script(
        "descriptors",
        "n=3\nwhile [ $n -lt 200 ]; do [ $n = 10 ] || { if (eval \": <&$n\") 2>/dev/null || (eval \": >&$n\") 2>/dev/null; then echo open $n; fi; }; n=$((n+1)); done",
    );
    let reads = folder.script(
        "reads",
        r#"for file in "$@"; do (read -r line < "$file") 2>/dev/null && echo "read $file"; done; echo end"#,
    );
    let writes = folder.script("writes", r#"(echo x > "$1") 2>/dev/null && echo wrote; pwd"#);
    let case = Case::new(&format!(
        "{{ program = '{env}', args = [] }}, {{ program = '{descriptors}', args = [] }}, \
         {{ program = '{reads}', args = ['/*', '/*', '/*', '/*', '/*'] }}, {{ program = '{writes}', args = ['/*'] }}"
    ));
    case.api.request("PUT", "/secrets/token").body("text/plain", "s3cret").send().expect(204);
    assert_eq!(case.run(json!({"program": env})), json!({"code": 0, "stdout": "", "stderr": ""}));
    assert_eq!(case.run(json!({"program": descriptors})), json!({"code": 0, "stdout": "", "stderr": ""}));
    let data = case.server.directory().join("data");
    let args = [
        shown(&data.join("secret.key")),
        shown(&data.join("events.db")),
        shown(&case.server.config_file()),
        format!("/proc/{}/environ", case.server.pid()),
        "/etc/passwd".to_owned(),
    ];
    for path in &args[..3] {
        assert!(fs::read(path).is_ok(), "{path} is there to be read");
    }
    assert_eq!(case.run(json!({"program": reads, "args": args}))["stdout"], "end\n");
    let target = folder.path.join("target");
    fs::write(&target, "old").expect("written");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o666)).expect("opened");
    let answer = case.run(json!({"program": writes, "args": [shown(&target)]}));
    let directory = answer["stdout"].as_str().expect("a text").trim().to_owned();
    assert!(!directory.contains("wrote"), "{answer}");
    assert_eq!(fs::read_to_string(&target).expect("a file"), "old");
    assert!(!Path::new(&directory).exists(), "its directory is gone: {directory}");
}

#[test]
fn limits_end_all_of_it() {
    let folder = Folder::new();
    let spins = folder
        .script("spins", "(while :; do :; done) & (trap '' TERM HUP INT; while :; do :; done) & while :; do :; done");
    let floods = folder.script("floods", "while :; do echo xxxxxxxxxxxxxxxx; done");
    let forks = folder.script("forks", "f() { f | f & }\nf\nwhile :; do :; done");
    let leaves = folder.script("leaves", "(while :; do :; done) & echo done");
    let deaf = folder.script("deaf", "exec <&-; echo done");
    let tables = grant(
        "*",
        "postCreate",
        &format!(
            "timeout = '110 s'\nprocess = [{{ program = '{spins}', args = [], timeout = '300 ms' }}, {{ program = '{floods}', args = [], output = '64 KiB' }}, \
             {{ program = '{forks}', args = [], timeout = '700 ms' }}, {{ program = '{leaves}', args = [] }}, {{ program = '{deaf}', args = [] }}]"
        ),
    );
    let arena = Arena::with(once(tables));
    let model = arena.victim();
    bind_post(&arena.api, &model, RUNS);
    let run = |data: Value| react(&arena.server.client(), &model, &data);
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", arena.server.pid())).expect("a process").count();
    run(json!({"program": leaves}));
    let before = descriptors();
    arena.bystander.stays_calm("programs", || {
        std::thread::scope(|scope| {
            let spinning: Vec<_> = (0..2).map(|_| scope.spawn(|| run(json!({"program": spins})))).collect();
            for answer in spinning.into_iter().map(|call| call.join().expect("an answer")) {
                assert_eq!(answer["code"], "timeout", "{answer}");
                assert!(answer["message"].as_str().expect("a text").contains("ran longer than 300 ms"), "{answer}");
            }
        });
        let answer = run(json!({"program": floods}));
        assert_eq!(answer["code"], "too-large", "{answer}");
        assert!(answer["message"].as_str().expect("a text").contains("wrote more than 64 KiB"), "{answer}");
        let answer = run(json!({"program": forks}));
        assert_eq!(answer["code"], "timeout", "{answer}");
        assert_eq!(run(json!({"program": leaves}))["stdout"], "done\n");
        assert_eq!(run(json!({"program": deaf, "stdin": "x".repeat(1_000_000)}))["stdout"], "done\n");
    });
    nothing_is_left(&arena.server, &shown(&folder.path));
    // The connections of this test come and go; descriptors that runs leave behind would add up.
    eventually("the descriptors are closed", || (descriptors() <= before + 8).then_some(()));
}

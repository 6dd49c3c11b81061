//! Help texts, and invalid arguments.

use super::run;

fn empty() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn help_teaches() {
    let directory = empty();
    let help = run(directory.path(), &["--help"]).ok();
    for word in [
        "serve",
        "check",
        "rebuild",
        "backup",
        "restore",
        "events",
        "errors",
        "secret",
        "hook",
        "apply",
        "--config",
        "--log",
        "--url",
        "Examples:",
    ] {
        assert!(help.contains(word), "`{word}` is missing in:\n{help}");
    }
    for (args, words) in [
        (&["serve"][..], &["SIGTERM", "SIGHUP", "10 seconds"][..]),
        (&["check"], &["lines"]),
        (&["rebuild"], &["event log", "No hook runs"]),
        (&["backup"], &["one moment", "private key", "Example"]),
        (&["restore"], &["verifies the file", "No hook runs"]),
        (&["events"], &["--follow", "--after", "--model", "--type", "--limit"]),
        (&["errors"], &["list", "retry", "drop"]),
        (&["errors", "list"], &["--json", "--model", "--hook"]),
        (&["errors", "retry"], &["--dry-run", "--all", "--model"]),
        (&["errors", "drop"], &["--all"]),
        (&["secret"], &["set", "list", "rm"]),
        (&["secret", "set"], &["stdin", "--file", "Example"]),
        (&["hook"], &["list", "put", "test"]),
        (&["hook", "put"], &["--model", "--phase", "--shadow", "Example"]),
        (&["hook", "test"], &["--before", "--after", "--json", "Example"]),
        (&["apply"], &["--plan", "model.json"]),
    ] {
        let all: Vec<&str> = args.iter().chain(&["--help"]).copied().collect();
        let help = run(directory.path(), &all).ok();
        for word in words {
            assert!(help.contains(word), "{args:?}: `{word}` is missing in:\n{help}");
        }
        assert!(help.contains("Usage: snaphook"), "{help}");
    }
    assert!(run(directory.path(), &["--version"]).ok().starts_with("snaphook "));
    // No file was created.
    assert_eq!(std::fs::read_dir(directory.path()).expect("a folder").count(), 0);
}

#[test]
fn wrong_arguments() {
    let directory = empty();
    for (args, says) in [
        (&["srve"][..], "serve"),
        (&["serve", "extra"], "extra"),
        (&["--nothing"], "--nothing"),
        (&["errors"], "retry"),
        (&["secret", "rm"], "NAME"),
        (&["events", "--after", "x"], "--after"),
        (&["hook", "put", "a.js", "--phase", "precreate"], "did you mean `preCreate`"),
        (&["hook", "put", "a.js", "--phase", "nothing"], "preCreate"),
    ] {
        let ended = run(directory.path(), args);
        assert_eq!(ended.code, Some(2), "{args:?}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains(says), "{args:?}: {}", ended.stderr);
    }
    let said = run(directory.path(), &["--url", "nonsense", "events"]).fails();
    assert!(said.contains("`--url` is `nonsense`"), "{said}");
    let said = run(directory.path(), &["--log", "[", "check"]).fails();
    assert!(said.contains("`--log`"), "{said}");
}

/// Commands that need a server report that there is none.
#[test]
fn no_server() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let directory = empty();
    for args in [&["events"][..], &["errors", "list"], &["hook", "list"], &["secret", "list"], &["rebuild"]] {
        let mut all = vec!["--url", &url];
        all.extend(args);
        let said = run(directory.path(), &all).fails();
        assert!(said.contains(&format!("no server responds at {url}")), "{args:?}: {said}");
    }
}

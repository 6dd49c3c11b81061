//! A module that throws, hangs, lies and leaks: it affects its own request, is then deactivated, and never harms the
//! server.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{compiled, example, has_line, module, options, says, serve};
use crate::support::{Client, Server, eventually};

const SOURCE: &str = "tests/guests/native/module.cpp";

fn library(flags: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir().expect("a folder");
    let library = compiled(SOURCE, flags, folder.path())?;
    Some((folder, library))
}

fn ask(api: &Client, what: &str) -> u16 {
    api.request("GET", "/models").header("x-do", what).send().status
}

#[test]
fn what_goes_wrong_costs_its_request() {
    let Some((_folder, library)) = library(&[]) else { return };
    // Two failures each, so that the module is not deactivated.
    for (what, status) in [
        ("throw", 500),
        ("throw-int", 500),
        ("fail", 500),
        ("open-null", 500),
        ("open-throw", 500),
        ("status-200", 500),
        ("status-9000", 500),
        ("view", 500),
        ("pending", 500),
        ("never", 504),
        ("again", 504),
        ("late", 504),
        ("hang", 504),
        ("response-throw", 500),
    ] {
        let server = serve(&module("hostile", &library, "timeout = '300 ms'"));
        let api = server.client();
        assert_eq!(ask(&api, "nothing"), 200);
        assert_eq!(ask(&api, what), status, "{what}");
        let document = api.request("GET", "/models").header("x-do", what).send();
        assert_eq!(document.header("content-type"), Some("application/problem+json"), "{what}");
        assert_eq!(document.json()["status"], status, "{what}");
        // Other requests are served as before.
        assert_eq!(ask(&api, "nothing"), 200, "{what}");
        says(&server, "module `hostile` failed: ");
        assert_eq!(api.get("/readyz").status, 200, "{what}");
    }
}

#[test]
fn what_is_not_allowed_is_refused_and_what_is_odd_does_no_harm() {
    let Some((_folder, library)) = library(&[]) else { return };
    let server = serve(&module("hostile", &library, "timeout = '5 s'"));
    let api = server.client();
    for (what, status) in [
        ("length", 418),
        ("huge", 413),
        ("response", 418),
        ("keep", 200),
        ("stale", 418),
        ("twice", 200),
        ("block", 200),
        ("leak", 200),
        ("nothing", 200),
    ] {
        assert_eq!(ask(&api, what), status, "{what}");
    }
    // Only the state of the current request still exists.
    eventually("all are closed", || (api.get("/models").header("x-open") == Some("1")).then_some(()));
    assert!(!has_line(&server, "failed: "), "{:?}", server.log());
}

/// Sends a request, and disconnects while a hook is likely to run.
fn leave(server: &Server, what: &str) {
    let mut stream = TcpStream::connect(server.address()).expect("a server");
    let request = format!("GET /models HTTP/1.1\r\nHost: localhost\r\nx-do: {what}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a server");
    std::thread::sleep(Duration::from_millis(100));
}

#[test]
fn a_hook_that_hangs_counts_when_its_client_is_gone() {
    let Some((_folder, library)) = library(&[]) else { return };
    let server = serve(&module("hostile", &library, "timeout = '300 ms'"));
    let api = server.client();
    eventually("it is deactivated", || {
        leave(&server, "hang");
        (ask(&api, "nothing") == 503).then_some(())
    });
    says(&server, "module `hostile` is deactivated: ");
}

#[test]
fn a_state_is_closed_when_its_client_left_while_it_was_made() {
    let Some((_folder, library)) = library(&["-DFLAGS=1"]) else { return };
    let server = serve(&module("hostile", &library, ""));
    let api = server.client();
    eventually("one is made", || {
        leave(&server, "open-block");
        has_line(&server, "made after a while").then_some(())
    });
    eventually("all are closed", || (api.get("/models").header("x-open") == Some("1")).then_some(()));
    assert!(!has_line(&server, "failed: "), "{:?}", server.log());
}

#[test]
fn three_strikes_end_a_module() {
    let Some((_folder, library)) = library(&[]) else { return };
    let server = serve(&module("hostile", &library, ""));
    let api = server.client();
    assert_eq!([ask(&api, "throw"), ask(&api, "fail"), ask(&api, "nothing"), ask(&api, "view")], [500, 500, 200, 500]);
    // Requests that the module would have checked are rejected.
    let refused = api.get("/models");
    assert_eq!(refused.json()["detail"], "the module `hostile` is deactivated after failures; see the server's log");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    let ready = api.get("/readyz");
    assert_eq!((ready.status, &ready.json()["status"]), (503, &"unavailable".into()));
    assert!(ready.json()["modules"]["hostile"].as_str().expect("a reason").contains("failed 3 times"));
    let metrics = api.get("/metrics").expect(200).text();
    assert!(metrics.contains("snaphook_module_active{module=\"hostile\"} 0\n"), "{metrics}");
    assert!(
        metrics.contains("snaphook_module_failures_total{module=\"hostile\",reason=\"exception\"} 1\n"),
        "{metrics}"
    );
    // Only the metrics of modules are readable.
    assert!(metrics.lines().all(|line| line.contains("snaphook_module_")), "{metrics}");
    says(&server, "module `hostile` is deactivated: ");
    api.get("/healthz").expect(200);
}

#[test]
fn an_optional_one_is_skipped_then() {
    let Some((_folder, library)) = library(&[]) else { return };
    let modules = module("hostile", &library, "optional = true") + &module("hello", &example("endpoint"), "");
    let server = serve(&modules);
    let api = server.client();
    assert_eq!([ask(&api, "throw"), ask(&api, "throw"), ask(&api, "throw"), ask(&api, "throw")], [500, 500, 500, 200]);
    api.get("/hello").expect(200);
    let ready = api.get("/readyz").expect(200).json();
    assert_eq!(ready["status"], "degraded");
    assert!(ready["modules"]["hostile"].is_string(), "{ready}");
}

/// Its hook was fast, so it runs on the server's request threads; there it starts to hang.
#[test]
fn a_hook_that_hangs_where_requests_are_served() {
    let Some((_folder, library)) = library(&[]) else { return };
    let mut server = serve(&module("hostile", &library, "timeout = '300 ms'"));
    let api = server.client();
    (0..50).for_each(|_| assert_eq!(ask(&api, "nothing"), 200));
    let started = Instant::now();
    assert_eq!([ask(&api, "hang"), ask(&api, "hang")], [504, 504]);
    assert!(started.elapsed() >= Duration::from_millis(600));
    (0..50).for_each(|_| assert_eq!(ask(&api, "nothing"), 200));
    assert_eq!(ask(&api, "hang"), 504);
    assert_eq!(ask(&api, "nothing"), 503);
    // The server stops nevertheless, without calling a module that still has running threads.
    assert!(server.stop().success());
    assert!(!has_line(&server, "deactivated, open"), "{:?}", server.log());
    assert!(has_line(&server, "is neither deactivated nor recycled"), "{:?}", server.log());
}

#[test]
fn a_filter_that_fails_breaks_the_body_off() {
    let Some((_folder, library)) = library(&[]) else { return };
    let server = serve(&module("hostile", &library, ""));
    let request = "GET /models HTTP/1.1\r\nHost: localhost\r\nx-do: filter\r\nConnection: close\r\n\r\n";
    let answer = String::from_utf8_lossy(&server.client().raw(request.as_bytes())).into_owned();
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    says(&server, "module `hostile` failed: it panicked or threw");
    server.client().get("/models").expect(200);
}

#[test]
fn a_server_does_not_start_without_its_module() {
    let Some((folder, library)) = library(&[]) else { return };
    let Some((_other_folder, version)) = self::library(&["-DVERSION=9"]) else { return };
    let Some((_third_folder, flags)) = self::library(&["-DFLAGS=256"]) else { return };
    let text = folder.path().join("text.so");
    std::fs::write(&text, "no library").expect("a file");
    let missing = folder.path().join("missing.so");
    let hook = compiled_hook(folder.path());
    for (library, more, expected) in [
        (&missing, "", "cannot be read"),
        (&text, "", "is not a shared library for this machine"),
        (&hook, "", "does not export `snaphook_module_v1`"),
        (&version, "", "for version 9 of the interface, this server has 1"),
        (&flags, "", "needs features that this server does not know (flags 0x100)"),
        (&library, "config = { activate = 'throw' }", "its `activate` panicked or threw an exception"),
        (&library, "config = { activate = 'fail' }", "its `activate` failed"),
        (&library, "config = { activate = 'lie' }", "its `activate` returned 77"),
        (&library, "config = { key = 'secret:none' }", "names the secret `none`, but there is no such secret"),
    ] {
        let said = refused(&module("hostile", library, more));
        assert!(said.contains("the module `hostile` cannot be used: ") && said.contains(expected), "{said}");
        assert!(said.contains("config.toml:"), "{said}");
    }
    // An optional module is skipped.
    let server = serve(&module("hostile", &missing, "optional = true"));
    server.client().get("/models").expect(200);
    says(&server, "it is optional, and left out");
}

fn compiled_hook(folder: &std::path::Path) -> PathBuf {
    let path = folder.join("check.so");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = std::process::Command::new("cc");
    command.args(["-shared", "-fPIC", "-I"]).arg(root.join("sdk/c")).arg("-o").arg(&path);
    assert!(command.arg(root.join("sdk/c/examples/check.c")).status().expect("a compiler").success());
    path
}

/// The output of a server that does not start.
fn refused(modules: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let config = format!("[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n{modules}");
    std::fs::write(folder.path().join("config.toml"), config).expect("a config");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_snaphook"));
    let output = command.arg("serve").current_dir(folder.path()).output().expect("the binary");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Requests that are in progress when the server stops are completed, with the modules still active.
#[test]
fn it_is_ended_in_order() {
    let Some((_folder, library)) = library(&[]) else { return };
    let mut server = Server::start_with(options(&module("hostile", &library, "")));
    let api = server.client();
    (0..20).for_each(|_| assert_eq!(ask(&api, "nothing"), 200));
    drop(api);
    assert!(server.stop().success());
    assert!(has_line(&server, "module `hostile`: deactivated, open: 0"), "{:?}", server.log());
}

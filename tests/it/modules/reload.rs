//! Modules that are added, changed and removed while the server runs.

use rustix::process::Signal;

use super::{compiled, example, module, says, serve};
use crate::support::{Server, eventually};

/// Replaces the module section of the configuration.
fn change(server: &Server, from: &str, to: &str) {
    let text = std::fs::read_to_string(server.config_file()).expect("a config");
    assert!(text.contains(from), "{text}");
    std::fs::write(server.config_file(), text.replace(from, to)).expect("a config");
}

#[test]
fn settings_change_and_modules_come_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(library) = compiled("tests/guests/native/module.cpp", &[], folder.path()) else { return };
    let first = module("it", &library, "config = { n = 1 }");
    let server = serve(&first);
    let api = server.client();
    api.get("/models").expect(200);
    says(&server, "module `it`: activated");
    says(&server, r#"config: {"n":1}"#);
    change(&server, "n = 1", "n = 2");
    says(&server, r#"config: {"n":2}"#);
    let activated = server.log().iter().filter(|line| line.contains("module `it`: activated")).count();
    assert_eq!(activated, 1);
    let told = || server.log().iter().filter(|line| line.contains(r#"config: {"n":2}"#)).count();
    server.signal(Signal::HUP);
    eventually("it is told again", || (told() > 1).then_some(()));

    // Add a module before it; this affects open connections too.
    let second = module("hello", &example("endpoint"), "");
    change(&server, &first.replace("n = 1", "n = 2"), &format!("{second}{}", first.replace("n = 1", "n = 2")));
    eventually("it answers", || (api.get("/hello").status == 200).then_some(()));

    // A module that cannot be loaded leaves both unchanged.
    change(&server, "module_endpoint", "module_nothing");
    says(&server, "the previous modules stay in force");
    api.get("/hello").expect(200);

    let text = std::fs::read_to_string(server.config_file()).expect("a config");
    let rest = text.split("[[server.modules]]").next().expect("a part").to_owned();
    std::fs::write(server.config_file(), rest).expect("a config");
    eventually("both are gone", || (api.get("/hello").status == 404).then_some(()));
    says(&server, "module `it`: deactivated, open: 0");
}

#[test]
fn an_optional_one_stays_if_its_new_library_cannot_be_loaded() {
    let server = serve(&module("hello", &example("endpoint"), "optional = true"));
    let api = server.client();
    change(&server, "module_endpoint", "module_nothing");
    says(&server, "the previous one stays in force");
    api.get("/hello").expect(200);
}

#[test]
fn a_new_library_takes_the_place_of_one_that_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(library) = compiled("tests/guests/native/module.cpp", &[], folder.path()) else { return };
    let server = serve(&module("it", &library, ""));
    let api = server.client();
    let ask = |what: &str| api.request("GET", "/models").header("x-do", what).send().status;
    assert_eq!([ask("throw"), ask("throw"), ask("throw"), ask("nothing")], [500, 500, 500, 503]);
    compiled("tests/guests/native/module.cpp", &["-O2", "-DANOTHER"], folder.path());
    eventually("the new one serves", || (ask("nothing") == 200).then_some(()));
    api.get("/readyz").expect(200);
}

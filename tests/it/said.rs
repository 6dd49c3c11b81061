//! Settings and arguments without effect are reported.

use std::path::Path;
use std::process::Command;

use crate::support::{Server, ServerOptions, eventually};

fn folder(hooks: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write(
        folder.path(),
        "config.toml",
        "[server]\nmount-address = '127.0.0.1:0'\n[auth]\nmode = 'open'\n[hooks]\napply = true\n",
    );
    hooks.iter().for_each(|(name, text)| write(folder.path(), name, text));
    folder
}

fn write(at: &Path, name: &str, text: &str) {
    let path = at.join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(path, text).expect("written");
}

/// The exit code, and the complete output.
fn run(directory: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_snaphook"));
    command.args(args).current_dir(directory);
    for name in ["SNAPHOOK_CONFIG", "SNAPHOOK_LOG", "SNAPHOOK_URL"] {
        command.env_remove(name);
    }
    let output = command.output().expect("it runs");
    (
        output.status.code(),
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat(),
    )
}

const HOOK: &str = "export default () => {}";
const MODEL: &str = r#"{"schema": {"type": "object"}}"#;

#[test]
fn a_folder_to_apply_that_is_not_there() {
    let folder = folder(&[]);
    for command in ["serve", "check"] {
        let (code, said) = run(folder.path(), &[command]);
        assert!(
            code == Some(1) && said.contains("hooks.apply") && said.contains("is not a folder"),
            "{command}: {said}"
        );
    }
}

#[test]
fn hooks_without_a_model() {
    let lost = folder(&[("hooks/lost/preCreate.js", HOOK)]);
    let (code, said) = run(lost.path(), &["apply"]);
    assert!(code == Some(1) && said.contains("contains no model") && said.contains("hooks/lost` has hooks"), "{said}");
    let (code, said) = run(lost.path(), &["check"]);
    assert!(code == Some(0) && said.contains("warning: ") && said.contains("contains no model"), "{said}");

    let options = ServerOptions { hooks: "apply = true".into(), ..ServerOptions::default() };
    let mut server = Server::start_with(options);
    eventually("it is in the log", || {
        server.log().iter().any(|line| line.contains("WARN") && line.contains("contains no model")).then_some(())
    });
    server.stop();
    write(server.directory(), "hooks/whole/model.json", MODEL);
    write(server.directory(), "hooks/lost/preCreate.js", HOOK);
    let server = server.restart_ended();
    server.client().get("/models/whole").expect(200);
    let said = eventually("it is in the log", || {
        let said = server.log();
        said.iter().any(|line| line.contains("WARN") && line.contains("lost` has hooks")).then_some(said)
    });
    assert!(!said.iter().any(|line| line.contains("contains no model")), "{said:?}");
    let url = format!("http://{}", server.address());
    let (code, said) = run(server.directory(), &["--url", &url, "apply"]);
    assert!(code == Some(0) && said.contains("warning: ") && said.contains("lost` has hooks"), "{said}");
}

#[test]
fn a_word_that_is_no_level() {
    let folder = folder(&[("hooks/a/model.json", MODEL)]);
    for (word, says) in
        [("verbos", "expected one of"), ("inof", "did you mean `info`?"), ("snaphook", "expected one of")]
    {
        let (code, said) = run(folder.path(), &["--log", word, "check"]);
        assert!(code == Some(1) && said.contains("`--log`") && said.contains(says), "{word}: {said}");
    }
    for word in ["debug", "warn,hyper=trace"] {
        assert_eq!(run(folder.path(), &["--log", word, "check"]).0, Some(0), "{word}");
    }
}

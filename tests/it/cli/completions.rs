//! Shell completions and manual pages, as their programs read them.

use std::process::Command;

use super::run;
use crate::support::skip;

#[test]
fn bash_completes() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("snaphook.bash");
    std::fs::write(&script, run(folder.path(), &["completions", "bash"]).ok()).expect("written");
    let complete = |words: &str, index: usize| {
        let line = format!(
            "source '{}'; COMP_WORDS=({words}); COMP_CWORD={index}; \
             _snaphook snaphook \"${{COMP_WORDS[{index}]}}\" \"${{COMP_WORDS[{index} - 1]}}\"; echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &line]).output().expect("bash");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    };
    assert_eq!(complete("snaphook res", 1), "restore");
    assert_eq!(complete("snaphook completions z", 2), "zsh");
    assert_eq!(complete("snaphook --log-f", 1), "--log-format");
    assert_eq!(complete("snaphook hook dep", 2), "deploy");
    // Internal commands are not completed.
    assert_eq!(complete("snaphook work", 1), "");
}

#[test]
fn other_shells_have_theirs() {
    let folder = tempfile::tempdir().expect("a folder");
    for (shell, word) in [
        ("zsh", "#compdef snaphook"),
        ("fish", "complete -c snaphook"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let script = run(folder.path(), &["completions", shell]).ok();
        assert!(script.contains(word) && script.contains("log-format") && !script.contains("v8-worker"), "{shell}");
    }
    let said = run(folder.path(), &["completions", "tcsh"]);
    assert!(said.code == Some(2) && said.stderr.contains("bash"), "{}", said.stderr);
}

#[test]
fn pages_of_the_manual() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = run(folder.path(), &["man", "a/b"]).ok();
    let pages = std::fs::read_dir(folder.path().join("a/b")).expect("a folder").count();
    assert_eq!(said, format!("wrote {pages} pages to a/b\n"));
    let page = folder.path().join("a/b/snaphook-hook-deploy.1");
    assert!(page.is_file() && !folder.path().join("a/b/snaphook-worker.1").exists());
    let Ok(output) = Command::new("man").arg("-l").arg(&page).env("MANPAGER", "cat").env("LC_ALL", "C.UTF-8").output()
    else {
        return skip("manual pages", "no `man` on the PATH");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("deploy") && text.contains("--phase"), "{text}");
    assert_eq!(run(folder.path(), &["man", "/dev/null/x"]).fails().lines().count(), 1);
}

//! Header comments, sizes and forbidden words of source files.

use super::{File, Finding};

/// A file that grows beyond this usually holds two ideas.
const LINES_MAX: usize = 700;

/// Files that may be longer, and why.
const LONG: [(&str, &str); 2] = [
    ("tests/it/bad_input/families.rs", "one list of malformed requests, read from top to bottom"),
    ("sdk/driver/src/wire/proto.rs", "generated"),
];

/// Third-party files, unchanged.
const FOREIGN: [&str; 1] = ["src/server/docs/swagger-ui/"];

const SOURCES: [&str; 4] = [".rs", ".ts", ".js", ".py"];

/// Words that must not be in source files. They are split here, so that this file does not contain them.
const WORDS: [(&str, &str); 8] = [
    (concat!("TO", "DO"), "file an issue instead"),
    (concat!("FIX", "ME"), "fix it, or file an issue"),
    (concat!("XX", "X"), "say what is wrong, or fix it"),
    (concat!("to", "do!("), "write it, or leave it out"),
    (concat!("unimple", "mented!("), "write it, or leave it out"),
    (concat!("#[ig", "nore"), "a test that does not run shows nothing: fix it or remove it"),
    (concat!("<<<<", "<<< "), "a conflict that was not resolved"),
    (concat!(">>>>", ">>> "), "a conflict that was not resolved"),
];

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    files.iter().filter(|file| is_source(&file.path)).flat_map(check_file).collect()
}

fn is_source(path: &str) -> bool {
    SOURCES.iter().any(|suffix| path.ends_with(suffix)) && !FOREIGN.iter().any(|folder| path.starts_with(folder))
}

fn check_file(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let head = file.text.lines().find(|line| !line.is_empty() && !line.starts_with("#!")).unwrap_or_default();
    let heads: &[&str] = match file.path.rsplit('.').next() {
        Some("rs") => &["//!"],
        Some("py") => &["#", "\"\"\""],
        _ => &["//", "/*"],
    };
    if !heads.iter().any(|expected| head.starts_with(expected)) {
        let message = format!("must begin with `{}` and a sentence that says what the file is for", heads[0]);
        findings.push(Finding::new(&file.path, 1, message));
    }
    let count = file.text.lines().count();
    if count > LINES_MAX && !LONG.iter().any(|(path, _)| *path == file.path) {
        let message =
            format!("{count} lines, at most {LINES_MAX}; split it along its ideas, or give the reason in LONG");
        findings.push(Finding::new(&file.path, 0, message));
    }
    for (index, line) in file.text.lines().enumerate() {
        for (word, advice) in WORDS.iter().filter(|(word, _)| contains(line, word)) {
            findings.push(Finding::new(&file.path, index + 1, format!("`{word}` was left behind: {advice}")));
        }
    }
    findings
}

/// Words of letters only match as complete words.
fn contains(line: &str, word: &str) -> bool {
    if word.chars().all(char::is_alphabetic) { super::code::has_word(line, word) } else { line.contains(word) }
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[track_caller]
    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&[file(path, text)]).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_source_file_begins_by_saying_what_it_is_for() {
        assert!(messages("a.rs", "//! What it is for.\n").is_empty());
        assert!(messages("a.rs", "#![cfg(unix)]\n\n//! What it is for.\n").is_empty());
        assert!(messages("a.rs", "use std::fmt;\n")[0].starts_with("a.rs:1: must begin with `//!`"));
        assert_eq!(messages("a.ts", "export {}\n").len(), 1);
        assert!(messages("a.json", "{}").is_empty());
    }

    #[test]
    fn files_of_others_stay_as_they_are() {
        assert!(
            messages("src/server/docs/swagger-ui/swagger-ui-bundle.js", &format!("x // {}", WORDS[0].0)).is_empty()
        );
    }

    #[test]
    fn long_files_need_a_reason() {
        let text = format!("//! x\n{}", "\n".repeat(LINES_MAX));
        assert!(messages("a.rs", &text)[0].contains("701 lines, at most 700"));
    }

    #[test]
    fn words_left_behind_are_found_alone_only() {
        let word = WORDS[0].0;
        assert_eq!(messages("a.rs", &format!("//! x\n// {word}: later\n"))[0].split(": ").next(), Some("a.rs:2"));
        assert!(messages("a.rs", &format!("//! x\nlet {word}S = 1;\n")).is_empty());
    }
}

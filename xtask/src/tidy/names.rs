//! A word that could name many types names at most one.

use super::code::{blank_comments_and_strings, lines};
use super::{File, Finding};

/// Words that once named several types. External types may have these names too.
const WORDS: [&str; 16] = [
    "Answer", "Body", "Change", "Command", "Document", "Engine", "Hook", "Kept", "Page", "Place", "Prepared", "Shared",
    "State", "Step", "Waiting", "Writer",
];

/// A separate workspace, whose rebuild needs a better reason than a name.
const ELSEWHERE: &str = "src/hooks/engines/quickjs/runner/";

const KEYWORDS: [&str; 4] = ["struct", "enum", "union", "trait"];

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let mut declared: Vec<(&str, &str, usize)> = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs") && !file.path.starts_with(ELSEWHERE)) {
        let code = blank_comments_and_strings(&file.text);
        for (line, text) in lines(&code) {
            let word = declaration(text).and_then(|name| WORDS.into_iter().find(|word| *word == name));
            declared.extend(word.map(|word| (word, file.path.as_str(), line)));
        }
    }
    let findings = declared.iter().filter_map(|&(word, path, line)| {
        let (_, other, at) = declared.iter().find(|&&place| place.0 == word && place != (word, path, line))?;
        let message = format!("`{word}` is also a type in {other}:{at}; name each by what it is");
        Some(Finding::new(path, line, message))
    });
    findings.collect()
}

/// The name of the type that a line of code declares.
fn declaration(line: &str) -> Option<&str> {
    let mut text = line.trim_start();
    if let Some(rest) = text.strip_prefix("pub") {
        text = match rest.strip_prefix('(') {
            Some(rest) => rest.split_once(')')?.1,
            None => rest,
        }
        .trim_start();
    }
    let (keyword, rest) = text.split_once(' ')?;
    let name = rest.trim_start();
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    // An associated type has the name that its trait gives it; such types are indented.
    let is_alias = keyword == "type" && !line.starts_with(' ');
    (is_alias || KEYWORDS.contains(&keyword)).then_some(&name[..end])
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    fn messages(files: &[File]) -> Vec<String> {
        check(files).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_word_names_one_type() {
        let first = file("src/a.rs", "pub(in crate::a) struct State<X> {\n}\nuse axum::extract::State;\n");
        let second = file("plugins/b/src/lib.rs", "// struct State;\nfn f() {\n    enum State { A }\n}\n");
        let found = messages(&[first, second]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0], "src/a.rs:1: `State` is also a type in plugins/b/src/lib.rs:3; name each by what it is");
        assert!(found[1].starts_with("plugins/b/src/lib.rs:3: `State` is also a type in src/a.rs:1"), "{}", found[1]);
    }

    #[test]
    fn each_kind_of_type_counts() {
        for kind in ["struct Page;", "pub enum Page {", "pub(crate) trait Page: Send {", "type Page<T> = Vec<T>;"] {
            assert_eq!(messages(&[file("a.rs", "struct Page<'a>(&'a str);"), file("b.rs", kind)]).len(), 2, "{kind}");
        }
    }

    #[test]
    fn uses_longer_names_and_associated_types_do_not_count() {
        let text = "struct Page;\nstruct PageBuilder;\nimpl Page {}\nenum Ask { Page(u8) }\nlet page: Page = Page;\n\
                    impl Pages for A {\n    type Page = u8;\n}\n";
        let other = file("src/hooks/engines/quickjs/runner/src/a.rs", "struct Page;");
        assert!(messages(&[file("a.rs", text), file("a.ts", "type Page = string;"), other]).is_empty());
    }
}

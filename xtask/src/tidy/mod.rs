//! `cargo xtask tidy`: checks properties of the repository that the compiler does not check.
//!
//! Each check is a function from the files to findings, so that its tests need no checkout.

mod architecture;
mod circles;
mod code;
mod json;
mod layers;
mod names;
mod readme;
mod sdk;
mod text;
mod unsafety;
mod wit;

use std::fmt;
use std::path::Path;

use crate::repository;
use crate::shell::Result;

/// A text file of the repository.
#[derive(Debug)]
pub(crate) struct File {
    /// Relative to the checkout, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A violation, and where it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// From 1; 0 for the whole file.
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Checks the checkout and prints the findings.
pub(crate) fn run(args: &[String]) -> Result {
    if let Some(arg) = args.first() {
        return Err(format!("`tidy` takes no argument, found `{arg}`"));
    }
    let files = load(&repository::root())?;
    let findings = check(&files);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files, nothing to fix", files.len());
            Ok(())
        }
        count => Err(format!("tidy: {count} places to fix")),
    }
}

fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let code = code::blank_comments_and_strings(&file.text);
        findings.extend(layers::check(&file.path, &code));
        findings.extend(unsafety::check(&file.path, &code));
        findings.extend(json::check(&file.path, &code));
    }
    findings.extend(unsafety::check_table(files));
    findings.extend(json::check_table(files));
    findings.extend(layers::check_manifests(files));
    findings.extend(text::check(files));
    findings.extend(wit::check(files));
    findings.extend(sdk::check(files));
    findings.extend(readme::check(files));
    findings.extend(architecture::check(files));
    findings.extend(circles::check(files));
    findings.extend(names::check(files));
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    findings
}

/// Loads the text files. Other files are skipped, because no check reads them.
fn load(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    for path in repository::files(root)? {
        let bytes = std::fs::read(root.join(&path)).map_err(|error| format!("cannot read {path}: {error}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File { path, text });
        }
    }
    Ok(files)
}

#[cfg(test)]
fn file(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

//! Released WIT text never changes: guests were built against it.
//!
//! `wit/since_v…/` holds one version of the package; `wit/since_v….sha256` records a released one, one line per file as
//! `sha256sum` writes them. A folder without that file is not released yet and may change; only the newest may be so.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::{File, Finding};

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let folders: BTreeSet<&str> = files
        .iter()
        .filter_map(|file| file.path.strip_prefix("wit/")?.split_once('/').map(|(folder, _)| folder))
        .collect();
    let records: BTreeMap<&str, &File> = files
        .iter()
        .filter_map(|file| Some((file.path.strip_prefix("wit/")?.strip_suffix(".sha256")?, file)))
        .collect();
    let mut findings = Vec::new();
    for (name, record) in &records {
        findings.extend(check_released(name, record, files));
    }
    let unreleased: Vec<&str> = folders.iter().copied().filter(|folder| !records.contains_key(folder)).collect();
    if unreleased.len() > 1 {
        let message = format!("more than one version is not released: {unreleased:?}; each needs its .sha256 first");
        findings.push(Finding::new("wit", 0, message));
    }
    findings
}

fn check_released(name: &str, record: &File, files: &[File]) -> Vec<Finding> {
    let folder = format!("wit/{name}/");
    let mut recorded: BTreeMap<&str, &str> = BTreeMap::new();
    let mut findings = Vec::new();
    for (index, line) in record.text.lines().enumerate() {
        match line.split_once("  ") {
            Some((hash, path)) if hash.len() == 64 => {
                recorded.insert(path, hash);
            }
            _ => findings.push(Finding::new(
                &record.path,
                index + 1,
                "expected `<sha256>  <path>` as sha256sum writes it",
            )),
        }
    }
    for file in files.iter().filter(|file| file.path.starts_with(&folder)) {
        let path = file.path.trim_start_matches("wit/");
        let found = hex(&Sha256::digest(file.text.as_bytes()));
        let message = match recorded.remove(path) {
            Some(hash) if hash == found => continue,
            Some(hash) => format!(
                "{name} is released and never changes (recorded {}…, found {}…); copy the folder to a new `since_v…`",
                &hash[..12],
                &found[..12]
            ),
            None => format!("{name} is released and never grows a file; copy the folder to a new `since_v…`"),
        };
        findings.push(Finding::new(&file.path, 0, message));
    }
    for path in recorded.keys() {
        findings.push(Finding::new(&record.path, 0, format!("wit/{path} is recorded as released, but is not there")));
    }
    findings
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    /// `printf abc | sha256sum`
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn released() -> Vec<File> {
        vec![
            file("wit/since_v1/a.wit", "abc"),
            file("wit/since_v1.sha256", &format!("{ABC}  since_v1/a.wit\n")),
            file("wit/since_v2/a.wit", "not released"),
        ]
    }

    #[test]
    fn recorded_text_and_one_unreleased_version_are_fine() {
        assert_eq!(check(&released()), []);
    }

    #[test]
    fn changed_added_and_removed_files_are_found() {
        let mut files = released();
        files[0].text.push(' ');
        assert!(check(&files)[0].message.contains("never changes"));
        files[0].text = "abc".into();
        files.push(file("wit/since_v1/b.wit", ""));
        assert!(check(&files)[0].message.contains("never grows"));
        assert!(check(&released()[1..])[0].message.contains("is not there"));
    }

    #[test]
    fn two_unreleased_versions_are_refused() {
        let files = [file("wit/since_v1/a.wit", ""), file("wit/since_v2/a.wit", "")];
        assert!(check(&files)[0].message.contains("more than one version"));
    }

    #[test]
    fn a_broken_record_is_named_with_its_line() {
        let found = check(&[file("wit/since_v1.sha256", "nonsense\n")]);
        assert_eq!(found[0].to_string(), "wit/since_v1.sha256:1: expected `<sha256>  <path>` as sha256sum writes it");
    }
}

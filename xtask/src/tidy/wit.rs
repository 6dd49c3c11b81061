//! Released WIT text never changes: guests were built against it.
//!
//! `wit/since_v…/` contains one version of the package for hooks, `wit/module/since_v…/` one of that for server
//! modules. The digests of released texts are in this file, so that changing the files in `wit/` alone cannot change a
//! released text. A folder without a row is not released yet and may change; there may be only one such folder.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::{File, Finding};

/// A file of a released version: its path below `wit/`, and the SHA-256 of its text. Rows are added when a version is
/// released (`cd wit && sha256sum since_v…/*`), and never changed or removed.
type Released = (&'static str, &'static str);

const RELEASED: &[Released] =
    &[("since_v0_1_0/hook.wit", "cba3884f17580ef5bddd8e8945f3091f9249e68f118d065680ca1a21b4faa6a0")];

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    check_against(RELEASED, files)
}

fn check_against(released: &[Released], files: &[File]) -> Vec<Finding> {
    let folder_of = |path: &'static str| path.rsplit_once('/').map_or(path, |(folder, _)| folder);
    let versions: BTreeSet<&str> = released.iter().map(|(path, _)| folder_of(path)).collect();
    let mut findings = Vec::new();
    let mut unreleased = BTreeSet::new();
    for file in files {
        let Some(path) = file.path.strip_prefix("wit/") else { continue };
        let Some((version, _)) = path.rsplit_once('/') else {
            let message = "expected folders of versions, `since_v…`, and nothing beside them";
            findings.push(Finding::new(&file.path, 0, message));
            continue;
        };
        if !versions.contains(version) {
            unreleased.insert(version);
            continue;
        }
        let found = hex(&Sha256::digest(file.text.as_bytes()));
        let what = match released.iter().find(|(known, _)| *known == path) {
            Some((_, hash)) if *hash == found => continue,
            Some((_, hash)) => format!("never changes (released {}…, found {}…)", &hash[..12], &found[..12]),
            None => "never gets another file".to_owned(),
        };
        let message = format!(
            "`{version}` is released and {what}: revert it with `git checkout`, and make the change in a new version, \
             a copy of the folder named `since_v…` with the new number"
        );
        findings.push(Finding::new(&file.path, 0, message));
    }
    for (path, _) in released {
        let path = format!("wit/{path}");
        if !files.iter().any(|file| file.path == path) {
            let message = "it is released, but missing: guests were built against it, so restore it";
            findings.push(Finding::new(&path, 0, message));
        }
    }
    if unreleased.len() > 1 {
        let message = format!(
            "more than one version is not released: {unreleased:?}; add the older ones to `xtask/src/tidy/wit.rs` first"
        );
        findings.push(Finding::new("wit", 0, message));
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
    const ONE: &[Released] = &[("since_v1/a.wit", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")];

    fn files() -> Vec<File> {
        vec![file("wit/since_v1/a.wit", "abc"), file("wit/since_v2/a.wit", "not released")]
    }

    #[test]
    fn released_text_and_one_unreleased_version_are_fine() {
        assert_eq!(check_against(ONE, &files()), []);
    }

    #[test]
    fn changed_added_and_removed_files_are_found() {
        let mut changed = files();
        changed[0].text.push(' ');
        let found = &check_against(ONE, &changed)[0];
        assert_eq!(found.path, "wit/since_v1/a.wit");
        assert!(found.message.contains("`since_v1` is released and never changes (released ba7816bf8f01…"), "{found}");
        assert!(found.message.contains("make the change in a new version"), "{found}");
        let mut more = files();
        more.push(file("wit/since_v1/b.wit", ""));
        assert!(check_against(ONE, &more)[0].message.contains("never gets another file"));
        assert!(check_against(ONE, &files()[1..])[0].message.contains("but missing"));
    }

    #[test]
    fn a_record_beside_the_text_releases_nothing() {
        let mut both = files();
        both[0].text.push(' ');
        let hash = hex(&Sha256::digest(both[0].text.as_bytes()));
        both.push(file("wit/since_v1.sha256", &format!("{hash}  since_v1/a.wit\n")));
        let found = check_against(ONE, &both);
        assert!(found.iter().any(|finding| finding.message.contains("never changes")), "{found:?}");
        assert!(found.iter().any(|finding| finding.path == "wit/since_v1.sha256"), "{found:?}");
    }

    #[test]
    fn two_unreleased_versions_are_refused() {
        let two = [file("wit/since_v1/a.wit", ""), file("wit/since_v2/a.wit", "")];
        assert!(check_against(&[], &two)[0].message.contains("more than one version"));
    }

    /// The current text is accepted; a change of one letter is not.
    #[test]
    fn the_released_package_is_held() {
        let path = "wit/since_v0_1_0/hook.wit";
        let text = std::fs::read_to_string(crate::repository::root().join(path)).unwrap();
        assert_eq!(check(&[file(path, &text)]), []);
        let changed = text.replacen("verdict", "Verdict", 1);
        assert_ne!(changed, text);
        assert!(check(&[file(path, &changed)])[0].message.contains("never changes"));
    }
}

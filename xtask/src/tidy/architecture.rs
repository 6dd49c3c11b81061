//! The code map matches the folders: it names every folder, and every path in it exists.

use std::collections::BTreeSet;

use super::{File, Finding};

const MAP: &str = "ARCHITECTURE.md";

/// Folders whose subfolders must be named too.
const DEEP: [&str; 6] = ["src", "sdk", "plugins", "hooks", "tests", "src/hooks"];

/// Folders that are irrelevant to the code map.
const LEFT_OUT: [&str; 1] = [".cargo"];

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let Some(map) = files.iter().find(|file| file.path == MAP) else {
        return vec![Finding::new(MAP, 0, "is missing: it is the map of the code")];
    };
    let folders = folders(files);
    let named: BTreeSet<&str> = paths_in(&map.text).map(|(_, path)| path).collect();
    let mut findings = Vec::new();
    for folder in folders.iter().filter(|folder| !named.contains(folder.as_str())) {
        findings.push(Finding::new(
            MAP,
            0,
            format!("does not name `{folder}/`: add a short paragraph to the code map"),
        ));
    }
    let tops: BTreeSet<&str> = folders.iter().filter_map(|folder| folder.split('/').next()).collect();
    for (line, path) in paths_in(&map.text) {
        let is_ours = path.split_once('/').is_some_and(|(top, _)| tops.contains(top));
        let exists = files
            .iter()
            .any(|file| file.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        if is_ours && !exists && !path.contains(['*', '<', '…']) {
            findings.push(Finding::new(MAP, line, format!("names `{path}`, which does not exist")));
        }
    }
    findings
}

/// Folders that the map must name, without a slash at the end.
fn folders(files: &[File]) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for file in files {
        let parts: Vec<&str> = file.path.split('/').collect();
        for depth in 1..parts.len() {
            let parent = parts[..depth - 1].join("/");
            if depth == 1 || DEEP.contains(&parent.as_str()) {
                folders.insert(parts[..depth].join("/"));
            }
        }
    }
    folders.retain(|folder| !LEFT_OUT.contains(&folder.as_str()));
    folders
}

/// Texts in backticks that look like a path, with their lines; a trailing slash is removed.
fn paths_in(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        line.split('`')
            .skip(1)
            .step_by(2)
            .filter(|quoted| !quoted.contains([' ', ':', '(']) && !quoted.starts_with('/'))
            .map(move |quoted| (index + 1, quoted.trim_end_matches('/')))
    })
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[track_caller]
    fn messages(map: &str, paths: &[&str]) -> Vec<String> {
        let mut files: Vec<File> = paths.iter().map(|path| file(path, "")).collect();
        files.push(file(MAP, map));
        check(&files).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn each_folder_is_named() {
        let paths = ["src/a/x.rs", "src/b/deep/y.rs", "docs/z.md"];
        assert!(messages("`src/`: `src/a`, `src/b/`, and `docs/`.", &paths).is_empty());
        let missing = messages("`src/`: `src/a/` and `docs/`.", &paths);
        assert_eq!(missing.len(), 1);
        assert!(missing[0].contains("`src/b/`"), "{}", missing[0]);
    }

    #[test]
    fn a_named_path_exists() {
        let found = messages("`src/`\n\n`src/a` has `src/a/gone.rs`, `GET /x/y` and `other/thing`.", &["src/a/x.rs"]);
        assert_eq!(found, ["names `src/a/gone.rs`, which does not exist"]);
    }

    #[test]
    fn the_map_is_there() {
        assert!(check(&[])[0].message.contains("is missing"));
    }
}

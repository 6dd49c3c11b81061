//! Each package of the SDK has a README, which registries show.

use super::{File, Finding};

const SDK: &str = "sdk/";
/// Templates for new packages, which are not packages themselves.
const TEMPLATES: &str = "sdk/templates/";
/// Files that make a folder a package.
const MANIFESTS: [&str; 3] = ["Cargo.toml", "package.json", "pyproject.toml"];

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let packages = files.iter().filter_map(|file| {
        let (folder, name) = file.path.rsplit_once('/')?;
        let is_package = folder.starts_with(SDK) && !file.path.starts_with(TEMPLATES) && MANIFESTS.contains(&name);
        is_package.then_some(folder)
    });
    let mut findings = Vec::new();
    for folder in packages {
        let readme = format!("{folder}/README.md");
        match files.iter().find(|file| file.path == readme) {
            Some(file) if file.text.starts_with("# ") && file.text.lines().count() > 3 => {}
            Some(_) => findings.push(Finding::new(&readme, 1, "must have a heading and say what the package is for")),
            None => {
                findings.push(Finding::new(&readme, 0, "is missing: say what the package is for, and how to use it"))
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn each_package_has_one() {
        let found = |files: &[(&str, &str)]| {
            let files: Vec<_> = files.iter().map(|(path, text)| file(path, text)).collect();
            check(&files).into_iter().map(|finding| finding.to_string()).collect::<Vec<_>>()
        };
        let text = "# a\n\nWhat it is for.\n\nMore.\n";
        assert!(found(&[("sdk/a/Cargo.toml", ""), ("sdk/a/README.md", text)]).is_empty());
        assert!(found(&[("plugins/a/Cargo.toml", ""), ("sdk/templates/js/package.json", "")]).is_empty());
        let missing = found(&[("sdk/a/Cargo.toml", ""), ("sdk/a/b/package.json", ""), ("sdk/a/README.md", text)]);
        assert!(missing.len() == 1 && missing[0].starts_with("sdk/a/b/README.md: is missing"), "{missing:?}");
        assert_eq!(found(&[("sdk/a/Cargo.toml", ""), ("sdk/a/README.md", "# a\n")]).len(), 1);
    }
}

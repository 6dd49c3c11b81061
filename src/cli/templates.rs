//! What `snaphook init`, `snaphook hook new` and `snaphook plugin new` write: the folders of `sdk/templates`, kept in the binary.

use std::collections::BTreeMap;
use std::path::Path;

use rust_embed::RustEmbed;

use super::failure::{Failure, Result};

#[derive(RustEmbed)]
#[folder = "sdk/templates/"]
struct Templates;

/// Writes a template's files into a folder that is new or empty; each `{{key}}` in them becomes its value. Gives their
/// names, sorted.
pub(super) fn write(template: &str, directory: &Path, values: &[(&str, &str)]) -> Result<Vec<String>> {
    write_over(&[template], directory, values)
}

/// The same for several templates in one folder: the files of a later one take the place of those of the earlier ones.
pub(super) fn write_over(templates: &[&str], directory: &Path, values: &[(&str, &str)]) -> Result<Vec<String>> {
    let shown = directory.display();
    let failed = |error: std::io::Error| Failure::new(format!("`{shown}` cannot be written: {error}"));
    if directory.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::new(format!("`{shown}` already exists and contains files; name a new folder")));
    }
    let mut files = BTreeMap::new();
    for template in templates {
        let prefix = format!("{template}/");
        let of_template: Vec<_> =
            Templates::iter().filter_map(|path| Some((path.strip_prefix(&prefix)?.to_owned(), path.clone()))).collect();
        if of_template.is_empty() {
            return Err(Failure::new(format!("this build has no template `{template}`")));
        }
        files.extend(of_template);
    }
    for (name, path) in &files {
        let Some(file) = Templates::get(path) else { continue };
        let bytes = match std::str::from_utf8(&file.data) {
            Ok(text) => fill(text, values).into_bytes(),
            Err(_) => file.data.into_owned(),
        };
        // Such a file beside the templates would hide theirs.
        let path = directory.join(name.replace("_gitignore", ".gitignore"));
        std::fs::create_dir_all(path.parent().unwrap_or(directory)).map_err(failed)?;
        std::fs::write(path, bytes).map_err(failed)?;
    }
    Ok(files.into_keys().map(|name| name.replace("_gitignore", ".gitignore")).collect())
}

fn fill(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (key, value)| text.replace(&format!("{{{{{key}}}}}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled_in_whole() {
        let templates = [
            "js",
            "ts",
            "rust",
            "c",
            "c-native",
            "python",
            "python-post",
            "project",
            "plugin-rust",
            "plugin-c",
            "endpoint-rust",
            "endpoint-js",
            "endpoint-python",
            "module-rust",
            "module-js",
            "module-python",
        ];
        let values = [
            ("name", "abc"),
            ("phase", "preCreate"),
            ("Phase", "PreCreate"),
            ("world", "pre-hook"),
            ("crate", "abc"),
            ("engine", ""),
        ];
        for template in
            templates.iter().filter(|name| Templates::iter().any(|path| path.starts_with(&format!("{name}/"))))
        {
            let folder = tempfile::tempdir().unwrap();
            let names = write(template, folder.path(), &values).unwrap();
            for name in names {
                let text = std::fs::read_to_string(folder.path().join(&name)).unwrap();
                assert!(!text.contains("{{name}}") && !text.contains("{{phase}}"), "{template}/{name}");
            }
            let again = write(template, folder.path(), &values).unwrap_err().to_string();
            assert!(again.contains("already exists"), "{again}");
        }
        let folder = tempfile::tempdir().unwrap();
        let names = write_over(&["python", "python-post"], folder.path(), &values).unwrap();
        let twice = names.iter().filter(|name| *name == "app.py").count();
        assert!(twice == 1 && names.contains(&"hook.toml".to_owned()), "{names:?}");
        let text = std::fs::read_to_string(folder.path().join("app.py")).unwrap();
        assert!(text.contains("def react") && !text.contains("def check"), "{text}");
        assert!(write("cobol", Path::new("x"), &[]).unwrap_err().to_string().contains("no template `cobol`"));
    }
}

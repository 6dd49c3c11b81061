//! What `snaphook init`, `snaphook hook new` and `snaphook plugin new` write: the folders of `sdk/templates`, kept in the binary.

use std::path::Path;

use rust_embed::RustEmbed;

use super::failure::{Failure, Result};

#[derive(RustEmbed)]
#[folder = "sdk/templates/"]
struct Templates;

/// Writes a template's files into a folder that is new or empty; each `{{key}}` in them becomes its value. Gives their
/// names, sorted.
pub(super) fn write(template: &str, directory: &Path, values: &[(&str, &str)]) -> Result<Vec<String>> {
    let shown = directory.display();
    let failed = |error: std::io::Error| Failure::new(format!("`{shown}` cannot be written: {error}"));
    if directory.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::new(format!("`{shown}` is there already and holds files; name a folder that is new")));
    }
    let prefix = format!("{template}/");
    let mut names: Vec<String> =
        Templates::iter().filter_map(|path| Some(path.strip_prefix(&prefix)?.to_owned())).collect();
    if names.is_empty() {
        return Err(Failure::new(format!("this build has no template `{template}`")));
    }
    names.sort();
    for name in &names {
        let Some(file) = Templates::get(&format!("{prefix}{name}")) else { continue };
        let bytes = match std::str::from_utf8(&file.data) {
            Ok(text) => fill(text, values).into_bytes(),
            Err(_) => file.data.into_owned(),
        };
        // Such a file beside the templates would hide theirs.
        let path = directory.join(name.replace("_gitignore", ".gitignore"));
        std::fs::create_dir_all(path.parent().unwrap_or(directory)).map_err(failed)?;
        std::fs::write(path, bytes).map_err(failed)?;
    }
    Ok(names.into_iter().map(|name| name.replace("_gitignore", ".gitignore")).collect())
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
        let values =
            [("name", "abc"), ("phase", "preCreate"), ("Phase", "PreCreate"), ("crate", "abc"), ("engine", "")];
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
            assert!(again.contains("is there already"), "{again}");
        }
        assert!(write("cobol", Path::new("x"), &[]).unwrap_err().to_string().contains("no template `cobol`"));
    }
}

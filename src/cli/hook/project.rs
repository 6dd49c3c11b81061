//! `hook.toml`: what `build`, `test` and `deploy` know of a hook that has a folder of its own.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::new::Language;
use crate::cli::failure::{Failure, Result};
use crate::config::Phase;

pub(in crate::cli) const FILE: &str = "hook.toml";

/// A hook's folder.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Project {
    pub(in crate::cli) directory: PathBuf,
    pub(in crate::cli) name: String,
    pub(in crate::cli) language: Language,
    pub(in crate::cli) phase: Phase,
    pub(super) model: Option<String>,
    /// JavaScript and TypeScript: the file that the bundle begins with.
    pub(super) entry: Option<PathBuf>,
    /// A library that runs in the server's own process.
    pub(in crate::cli) native: bool,
    /// Commands that build it, instead of the language's own way.
    pub(super) build: Vec<Vec<String>>,
    /// What those commands make.
    pub(in crate::cli) output: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    language: Spanned<String>,
    phase: Spanned<String>,
    model: Option<String>,
    engine: Option<Spanned<String>>,
    entry: Option<PathBuf>,
    #[serde(default)]
    build: Vec<Vec<String>>,
    output: Option<PathBuf>,
}

impl Project {
    /// The project of a folder; `None` if it has no `hook.toml`.
    pub(in crate::cli) fn find(directory: &Path) -> Result<Option<Project>> {
        let path = directory.join(FILE);
        let shown = path.display();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::new(format!("`{shown}` cannot be read: {error}"))),
        };
        let line = |start: usize| 1 + text[..start.min(text.len())].matches('\n').count();
        let file: File = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line(span.start));
            Failure::new(format!("{shown}:{line}: {}", error.message()))
        })?;
        let language = Language::ALL.into_iter().find(|language| language.as_str() == file.language.as_ref());
        let language = language.ok_or_else(|| {
            let names = Language::ALL.map(Language::as_str).join(", ");
            let line = line(file.language.span().start);
            Failure::new(format!(
                "{shown}:{line}: `{}` is not a language, expected one of {names}",
                file.language.as_ref()
            ))
        })?;
        let phase = super::phase::phase(file.phase.as_ref())
            .map_err(|message| Failure::new(format!("{shown}:{}: {message}", line(file.phase.span().start))))?;
        let native = match &file.engine {
            Some(engine) if engine.as_ref() != "native" => {
                let line = line(engine.span().start);
                return Err(Failure::new(format!(
                    "{shown}:{line}: `engine` is `{}`, expected 'native' or none: a component, or JavaScript",
                    engine.as_ref()
                )));
            }
            engine => engine.is_some(),
        };
        if native && !matches!(language, Language::Rust | Language::C) {
            return Err(Failure::new(format!("{shown}: native hooks are in Rust or C, found `{}`", language.as_str())));
        }
        if !file.build.is_empty() && file.output.is_none() {
            return Err(Failure::new(format!("{shown}: `build` needs `output`, the file that its commands create")));
        }
        Ok(Some(Project {
            directory: directory.to_owned(),
            name: file.name,
            language,
            phase,
            model: file.model,
            entry: file.entry,
            native,
            build: file.build,
            output: file.output,
        }))
    }

    /// The project that a built file belongs to: it lies in `dist` below its folder.
    pub(super) fn of_output(file: &Path) -> Option<Project> {
        let parent = std::path::absolute(file).ok()?.parent()?.to_owned();
        if parent.file_name()? != "dist" {
            return None;
        }
        Project::find(parent.parent()?).ok()?
    }

    /// What the project is built to.
    pub(in crate::cli) fn target(&self) -> PathBuf {
        let folder = self.directory.strip_prefix(".").unwrap_or(&self.directory).join("dist");
        if self.native {
            return folder.join(format!("{}.{}", self.name, std::env::consts::DLL_EXTENSION));
        }
        let extension = if matches!(self.language, Language::Js | Language::Ts) { "js" } else { "wasm" };
        folder.join(format!("{}.{extension}", self.phase))
    }

    /// The model that it is for: as `hook.toml` says, or that of the folder around it.
    pub(super) fn model(&self) -> Option<String> {
        self.model.clone().or_else(|| {
            let folder = self.model_folder()?;
            Some(folder.file_name()?.to_str()?.to_owned())
        })
    }

    /// The folder of the model's files that it lies in.
    pub(super) fn model_folder(&self) -> Option<PathBuf> {
        let folder = std::path::absolute(&self.directory).ok()?.parent()?.to_owned();
        folder.join("model.json").is_file().then_some(folder)
    }

    /// Sample data, as the templates have it.
    pub(super) fn sample(&self) -> Option<PathBuf> {
        Some(self.directory.join("test/data.json")).filter(|file| file.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_their_line() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Project::find(folder.path()).unwrap().is_none());
        for (text, expected) in [
            ("name = 'a'\nlanguage = 'cobol'\nphase = 'preCreate'\n", ":2: `cobol` is not a language"),
            ("name = 'a'\nlanguage = 'c'\nphase = 'precreate'\n", ":3: not a phase, did you mean `preCreate`?"),
            ("name = 'a'\nlanguage = 'c'\nphase = 'preCreate'\nentri = 'x'\n", ":4: unknown field `entri`"),
            ("name = 'a'\nlanguage = 'c'\nphase = 'preCreate'\nbuild = [['make']]\n", "`build` needs `output`"),
            ("name = 'a'\nlanguage = 'c'\nphase = 'preCreate'\nengine = 'v8'\n", ":4: `engine` is `v8`"),
            ("name = 'a'\nlanguage = 'ts'\nphase = 'preCreate'\nengine = 'native'\n", "in Rust or C, found `ts`"),
        ] {
            std::fs::write(folder.path().join(FILE), text).unwrap();
            let error = Project::find(folder.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        std::fs::write(folder.path().join(FILE), "name = 'a'\nlanguage = 'ts'\nphase = 'preCreate'\n").unwrap();
        let project = Project::find(folder.path()).unwrap().unwrap();
        assert_eq!(project.target(), folder.path().join("dist/preCreate.js"));
        assert_eq!(Project::of_output(&project.target()).unwrap().name, "a");
        assert!(Project::of_output(&folder.path().join("preCreate.js")).is_none());
    }
}

//! What `snaphook hook test` tries: a file, or a hook's folder, which is built first; with the name, model and phase that it has
//! when it is bound.

use std::path::{Path, PathBuf};

use super::build::{build_project, no_project};
use super::location::HookLocation;
use super::project::Project;
use crate::catalog::files::read_chain_file;
use crate::cli::failure::Result;
use crate::cli::global::Global;
use crate::cli::output;
use crate::config::{FILE_DEFAULT, Phase};

pub(super) struct Subject {
    pub(super) file: PathBuf,
    pub(super) phase: Phase,
    pub(super) name: String,
    pub(super) model: Option<String>,
    /// Data to begin with, if nothing else is named.
    pub(super) sample: Option<PathBuf>,
    /// The folder with the models' folders, where the hook's own place says which it is.
    pub(super) models: Option<PathBuf>,
}

impl Subject {
    pub(super) async fn of(
        source: &Path,
        place: &HookLocation,
        name: Option<&str>,
        global: &Global,
    ) -> Result<Subject> {
        if source.is_dir() {
            let project = Project::find(source)?.ok_or_else(|| no_project(source))?;
            let project = Project { phase: place.phase.unwrap_or(project.phase), ..project };
            output::note(build_project(global, &project, None, true).await?);
            return Ok(Subject::of_project(project, place, name));
        }
        if let Some(project) = Project::of_output(source) {
            let phase = place.phase(source)?;
            let file = source.to_owned();
            return Ok(Subject { file, phase, ..Subject::of_project(project, place, name) });
        }
        let phase = place.phase(source)?;
        Ok(Subject {
            file: source.to_owned(),
            phase,
            name: name.map_or_else(|| bound_name(source, phase), str::to_owned),
            model: place.model(source),
            sample: None,
            models: None,
        })
    }

    fn of_project(project: Project, place: &HookLocation, name: Option<&str>) -> Subject {
        Subject {
            file: project.target(),
            phase: project.phase,
            model: place.model.clone().or_else(|| project.model()),
            sample: project.sample(),
            models: project.model_folder().and_then(|folder| Some(folder.parent()?.to_owned())),
            name: name.map_or(project.name, str::to_owned),
        }
    }
}

/// The options, with the configuration beside the folder of hooks that a hook's folder lies in, unless there is one here.
pub(super) fn with_configuration(global: &Global, source: &Path) -> Global {
    let found = || {
        let project = Project::find(source).ok()??;
        let file = project.model_folder()?.parent()?.parent()?.join(FILE_DEFAULT);
        file.is_file().then_some(file)
    };
    let is_here = global.config.is_some() || Path::new(FILE_DEFAULT).is_file();
    let config = if is_here { global.config.clone() } else { found() };
    Global { config, ..global.clone() }
}

/// As a server names the hook of a file: as the chain of its phase says, as the library is called, else as the phase.
fn bound_name(file: &Path, phase: Phase) -> String {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    let folder = file.parent().unwrap_or(Path::new(""));
    let chain = folder.join(format!("{phase}.toml"));
    let named = || {
        let chain = read_chain_file(&chain, phase).ok()?;
        let link = chain.into_iter().find(|link| link.path.file_name() == file.file_name())?;
        link.name
    };
    let is_library =
        file.extension().is_some_and(|extension| matches!(extension.to_str(), Some("so" | "dylib" | "dll")));
    if chain.is_file()
        && let Some(name) = named()
    {
        return name;
    }
    stem.filter(|_| is_library).unwrap_or(phase.as_str()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_bound_hooks() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            path
        };
        assert_eq!(bound_name(&file("check.js"), Phase::PreCreate), "preCreate");
        assert_eq!(bound_name(&file("limit.so"), Phase::PreCreate), "limit");
        let chain = "[[chain]]\nname = 'first'\nfile = 'check.js'\n";
        std::fs::write(folder.path().join("preCreate.toml"), chain).unwrap();
        assert_eq!(bound_name(&file("check.js"), Phase::PreCreate), "first");
        assert_eq!(bound_name(&file("other.js"), Phase::PreCreate), "preCreate");
    }
}

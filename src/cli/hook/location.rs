//! Where a hook belongs, and what its file is.

use std::path::Path;

use clap::Args;

use super::phase::phase;
use super::project::Project;
use crate::catalog::SourceLanguage;
use crate::cli::failure::{Failure, Result};
use crate::config::Phase;

/// As the command line says it.
#[derive(Args, Debug)]
pub(in crate::cli) struct HookLocation {
    /// The model [default: the file's folder, if it contains a model.json]
    #[arg(long)]
    pub(super) model: Option<String>,
    /// preCreate, postCreate, preUpdate, postUpdate, preDelete or postDelete [default: from the file name]
    #[arg(long, value_parser = phase)]
    pub(super) phase: Option<Phase>,
    /// The engine; `v8` runs the same code as `quickjs` [default: from the file name]
    #[arg(long)]
    pub(super) engine: Option<String>,
}

impl HookLocation {
    pub(super) fn phase(&self, file: &Path) -> Result<Phase> {
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        self.phase.or_else(|| Phase::from_name(stem)).ok_or_else(|| {
            Failure::new(format!("the file's name `{stem}` is not a phase; name one, such as `--phase preCreate`"))
        })
    }

    pub(super) fn model(&self, file: &Path) -> Option<String> {
        let folder = || {
            let folder = std::path::absolute(file).ok()?.parent()?.to_owned();
            let name = folder.file_name()?.to_str()?.to_owned();
            folder.join("model.json").is_file().then_some(name)
        };
        let project = || Project::of_output(file)?.model();
        self.model.clone().or_else(folder).or_else(project)
    }
}

/// The engine and the code of a file, and what language it is in if it is a source.
pub(super) fn read(file: &Path, place: &HookLocation) -> Result<(String, Vec<u8>, Option<SourceLanguage>)> {
    let (engine, language) = match file.extension().and_then(|extension| extension.to_str()) {
        Some("wasm") => ("component", None),
        Some("so" | "dylib" | "dll") => ("native", None),
        Some(extension) if let language @ Some(_) = SourceLanguage::of_extension(extension) => ("quickjs", language),
        _ => {
            let name = file.display();
            return Err(Failure::new(format!(
                "`{name}` has an unknown file type, expected `.js`, `.ts`, `.wasm` or a native library"
            )));
        }
    };
    let bytes =
        std::fs::read(file).map_err(|error| Failure::new(format!("`{}` cannot be read: {error}", file.display())))?;
    Ok((place.engine.clone().unwrap_or_else(|| engine.to_owned()), bytes, language))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("movie/preCreate.ts");
        std::fs::create_dir(folder.path().join("movie")).unwrap();
        let place = HookLocation { model: None, phase: None, engine: None };
        assert_eq!(place.phase(&file).unwrap(), Phase::PreCreate);
        assert_eq!(place.model(&file), None);
        std::fs::write(folder.path().join("movie/model.json"), "{}").unwrap();
        assert_eq!(place.model(&file).as_deref(), Some("movie"));
        let place = HookLocation { model: Some("other".to_owned()), phase: Some(Phase::PostDelete), engine: None };
        assert_eq!((place.phase(&file).unwrap(), place.model(&file).as_deref()), (Phase::PostDelete, Some("other")));
        assert_eq!(phase("precreate").unwrap_err(), "not a phase, did you mean `preCreate`?");
    }
}

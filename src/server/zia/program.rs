//! Finds the bridge's program.

use std::path::{Path, PathBuf};

/// Searches a name beside this binary first, then in `PATH`; a path is used as it is. The error is a whole sentence.
pub(in crate::server) fn find(program: &Path) -> Result<PathBuf, String> {
    let missing = |places: &str| {
        format!(
            "modules with `kind = 'zia'` run in the program `{}`, which {places}; `cargo xtask modules` builds it, \
             `zia-bridge` under `[server]` sets its path",
            program.display()
        )
    };
    if program.components().count() > 1 {
        return if program.is_file() { Ok(program.to_owned()) } else { Err(missing("does not exist")) };
    }
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = beside.into_iter().chain(std::env::split_paths(&path));
    let found = folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file());
    found.ok_or_else(|| missing("is neither beside this binary nor in PATH"))
}

//! Locations of external programs that read the document.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::skip;

/// A program of the Python packages in `tests/openapi/requirements.txt`.
#[track_caller]
pub(crate) fn python(program: &str) -> Option<Command> {
    let beside = || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("openapi-tools");
    let folder = std::env::var_os("SNAPHOOK_OPENAPI_TOOLS").map_or_else(beside, PathBuf::from);
    let program = folder.join("bin").join(program);
    if program.is_file() {
        return Some(Command::new(program));
    }
    skip(&program.display().to_string(), "it is not there; `cargo xtask test` installs it");
    None
}

/// The folder with the npm packages.
#[track_caller]
pub(crate) fn packages() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    if folder.join("node_modules/openapi-typescript").is_dir() {
        return Some(folder);
    }
    skip(
        "a client that is generated",
        "no packages in tests/openapi; `cargo xtask test` installs them, or `npm ci` there",
    );
    None
}

/// Runs a command, which must succeed; otherwise its complete output is shown.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said
}

//! `cargo xtask v8`: downloads V8 as a library into `plugins/v8/`, where the engine `v8` looks for it.
//!
//! No crate contains V8 as a binary. The Python package mini-racer does, with a C interface; pip downloads it from its
//! configured registry, and the digest below ensures that it is the expected one.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::repository::root;
use crate::shell::{Result, find_program, run as run_command};

/// The package; src/hooks/engines/v8/worker/library.rs is written for the C interface of this version.
const PACKAGE: &str = "mini-racer==0.14.1";

/// Machine, pip's name of the platform, SHA-256 of the package file.
const BUILDS: [(&str, &str, &str); 2] = [
    ("x86_64", "manylinux_2_27_x86_64", "cdf3a088e1363f16a695288f882abf76b3705b8e1df21418208b87ed010037a4"),
    ("aarch64", "manylinux_2_27_aarch64", "7f93d91973ddb2da4e899e06ecb426bfe7ea103cd1c92687ec9c38f206f375eb"),
];

/// The files of the package that the engine needs.
const FILES: [&str; 2] = ["libmini_racer.so", "icudtl.dat"];

/// The file that contains the installed version.
const MARK: &str = "VERSION";

/// `cargo xtask v8`.
pub(crate) fn run(args: &[String]) -> Result {
    if let Some(arg) = args.first() {
        return Err(format!("`v8` takes no argument, found `{arg}`"));
    }
    fetch().map(|folder| println!("V8 is in {}", folder.display()))
}

/// Downloads the library if it is missing, and returns its folder.
pub(crate) fn fetch() -> Result<PathBuf> {
    let folder = root().join("plugins/v8");
    let machine = std::env::consts::ARCH;
    let build = BUILDS.into_iter().find(|(name, ..)| std::env::consts::OS == "linux" && *name == machine);
    let Some((_, platform, digest)) = build else {
        return Err(format!(
            "the engine v8 is for Linux on x86_64 and aarch64, this is {} on {machine}",
            std::env::consts::OS
        ));
    };
    let is_there = std::fs::read_to_string(folder.join(MARK)).is_ok_and(|mark| mark == digest);
    if is_there && FILES.iter().all(|file| folder.join(file).is_file()) {
        return Ok(folder);
    }
    let python = find_program("python3").ok_or("no `python3`: pip fetches V8; install python3 with pip")?;
    let temporary = folder.join("download");
    let at = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let _ = std::fs::remove_dir_all(&temporary);
    std::fs::create_dir_all(&temporary).map_err(|error| at(&temporary, error))?;
    println!("fetching {PACKAGE} ...");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--only-binary=:all:"]);
    run_command(pip.args(["--platform", platform, PACKAGE, "--dest"]).arg(&temporary))?;
    let wheel = std::fs::read_dir(&temporary)
        .map_err(|error| at(&temporary, error))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or("pip fetched no package")?;
    let installed = install(&python, &wheel, digest, &folder);
    // Nothing of a rejected package is left to be used by mistake.
    std::fs::remove_dir_all(&temporary).map_err(|error| at(&temporary, error))?;
    installed.map(|()| folder)
}

/// Extracts the library from a package that was downloaded into a separate folder, if it has that SHA-256.
fn install(python: &Path, wheel: &Path, digest: &str, folder: &Path) -> Result {
    let at = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let bytes = std::fs::read(wheel).map_err(|error| at(wheel, error))?;
    let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if found != digest {
        let name = wheel.file_name().unwrap_or_default().to_string_lossy();
        return Err(format!(
            "`{name}` has the SHA-256 {found}, expected {digest}: it is not the {PACKAGE} that this version needs, so \
             it was not unpacked; check which registry pip uses"
        ));
    }
    let unpacked = wheel.with_extension("unpacked");
    run_command(Command::new(python).args(["-m", "zipfile", "-e"]).arg(wheel).arg(&unpacked))?;
    for file in FILES {
        let from = unpacked.join("mini_racer-0.14.1.data/purelib/py_mini_racer").join(file);
        std::fs::rename(&from, folder.join(file)).map_err(|error| at(&from, error))?;
    }
    std::fs::write(folder.join(MARK), digest).map_err(|error| at(folder, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A package as pip downloads it, with the two files containing `content`: its folder, its path and its SHA-256.
    fn package(content: &str) -> (tempfile::TempDir, PathBuf, String) {
        let outer = tempfile::tempdir().unwrap();
        let files = outer.path().join("mini_racer-0.14.1.data/purelib/py_mini_racer");
        std::fs::create_dir_all(&files).unwrap();
        FILES.iter().for_each(|file| std::fs::write(files.join(file), content).unwrap());
        let wheel = outer.path().join("mini_racer-0.14.1-py3-none-any.whl");
        let mut zip = Command::new("python3");
        zip.args(["-m", "zipfile", "-c"]).arg(&wheel).arg("mini_racer-0.14.1.data").current_dir(outer.path());
        run_command(&mut zip).unwrap();
        let digest = Sha256::digest(std::fs::read(&wheel).unwrap());
        (outer, wheel, digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    #[test]
    fn another_package_is_refused_and_leaves_nothing() {
        let python = find_program("python3").unwrap();
        let (outer, wheel, digest) = package("library");
        let folder = outer.path().join("v8");
        std::fs::create_dir(&folder).unwrap();
        let is_empty = || std::fs::read_dir(&folder).unwrap().next().is_none();

        // The pinned packages have other digests.
        for (_, _, pinned) in BUILDS {
            let error = install(&python, &wheel, pinned, &folder).unwrap_err();
            assert!(error.contains(&format!("has the SHA-256 {digest}, expected {pinned}")), "{error}");
            assert!(error.contains("was not unpacked") && is_empty(), "{error}");
        }
        // One more byte at the end, which would not affect unpacking.
        let mut bytes = std::fs::read(&wheel).unwrap();
        bytes.push(0);
        std::fs::write(&wheel, &bytes).unwrap();
        assert!(install(&python, &wheel, &digest, &folder).unwrap_err().contains("was not unpacked") && is_empty());
        bytes.pop();
        std::fs::write(&wheel, &bytes).unwrap();
        install(&python, &wheel, &digest, &folder).unwrap();
        FILES.iter().for_each(|file| assert_eq!(std::fs::read_to_string(folder.join(file)).unwrap(), "library"));
        assert_eq!(std::fs::read_to_string(folder.join(MARK)).unwrap(), digest);
    }
}

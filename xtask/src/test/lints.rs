//! Which lints the code is checked for while it is compiled.
//!
//! `cargo clippy` compiles the workspace once more, and from nothing also all of its dependencies, because it compiles
//! without generating code. Here the driver of clippy takes the place of the compiler for the crates of the workspace,
//! so that the code is compiled once and the dependencies are those of any other build. The driver optimises slightly
//! less than the compiler, which tests do not depend on.

use std::path::PathBuf;
use std::process::Command;

use crate::shell::{Result, beside_cargo};

/// The lints of a build; by default those of the compiler alone, whose warnings are no failures.
#[derive(Debug, Default)]
pub(super) struct Lints {
    driver: Option<PathBuf>,
}

impl Lints {
    /// Those of clippy too.
    pub(super) fn clippy() -> Result<Lints> {
        const DRIVER: &str = "clippy-driver";
        let driver = beside_cargo(DRIVER).ok_or(format!("the toolchain has no `{DRIVER}`: install its clippy"))?;
        Ok(Lints { driver: Some(driver) })
    }

    /// Makes a cargo check for them. All that shares compiled crates needs this, or cargo would compile them again.
    pub(super) fn apply(&self, cargo: &mut Command) {
        if let Some(driver) = &self.driver {
            // As `cargo clippy` calls it.
            cargo.env("RUSTC_WORKSPACE_WRAPPER", driver).env("CLIPPY_ARGS", "");
        }
    }

    /// What a number of warnings means.
    pub(super) fn verdict(&self, warnings: usize) -> Result {
        match warnings {
            0 => Ok(()),
            _ if self.driver.is_none() => Ok(()),
            warnings => Err(format!("clippy: {warnings} warnings")),
        }
    }
}

//! `snaphook man`: manual pages, one per command. `packaging/man` has a copy.

use std::path::{Path, PathBuf};

use clap::{Args, Command};

use super::failure::{Failure, Result};
use super::output;

/// Write manual pages into a folder, one per command
///
/// Example: snaphook man /usr/local/share/man/man1
#[derive(Args, Debug)]
pub(super) struct Man {
    /// The folder; created if it does not exist
    directory: PathBuf,
}

impl Man {
    pub(super) fn run(&self, program: &Command) -> Result<()> {
        let pages = write(program, &self.directory)
            .map_err(|error| Failure::new(format!("`{}` cannot be written: {error}", self.directory.display())))?;
        output::line(format!("wrote {pages} pages to {}", self.directory.display()))
    }
}

/// Returns the number of pages.
pub(super) fn write(program: &Command, directory: &Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(program.clone(), directory)?;
    Ok(count(program))
}

fn count(command: &Command) -> usize {
    1 + command.get_subcommands().filter(|command| !command.is_hide_set()).map(count).sum::<usize>()
}

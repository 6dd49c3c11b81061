//! `snaphook man`: the manual pages of this program, one for each command. `packaging/man` has them as they are now.

use std::path::{Path, PathBuf};

use clap::{Args, Command};

use super::failure::{Failure, Result};
use super::output;

/// Write the manual pages into a folder, one for each command
///
/// Example: snaphook man /usr/local/share/man/man1
#[derive(Args, Debug)]
pub(super) struct Man {
    /// The folder; it is made if it is not there
    directory: PathBuf,
}

impl Man {
    pub(super) fn run(&self, program: &Command) -> Result<()> {
        let pages = write(program, &self.directory)
            .map_err(|error| Failure::new(format!("`{}` cannot be written: {error}", self.directory.display())))?;
        output::line(format!("wrote {pages} pages to {}", self.directory.display()))
    }
}

/// How many pages there are.
pub(super) fn write(program: &Command, directory: &Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(program.clone(), directory)?;
    Ok(count(program))
}

fn count(command: &Command) -> usize {
    1 + command.get_subcommands().filter(|command| !command.is_hide_set()).map(count).sum::<usize>()
}

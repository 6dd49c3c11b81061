//! `snaphook completions`: scripts that make shells complete commands and flags.

use std::io::Write as _;

use clap::{Args, Command};
use clap_complete::{Shell, generate};

use super::failure::Result;

/// Print a shell script that completes commands and flags
///
/// Write it to ~/.local/share/bash-completion/completions/snaphook for bash, a file `_snaphook` in a folder of `fpath` for
/// zsh, and ~/.config/fish/completions/snaphook.fish for fish.
///
/// Example: snaphook completions bash > ~/.local/share/bash-completion/completions/snaphook
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, program: &Command) -> Result<()> {
        let mut script = Vec::new();
        generate(self.shell, &mut visible(program), program.get_name(), &mut script);
        Ok(std::io::stdout().lock().write_all(&script)?)
    }
}

/// The program without hidden commands.
fn visible(program: &Command) -> Command {
    let mut command = Command::new(env!("CARGO_PKG_NAME"))
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments().cloned())
        .subcommands(program.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
    if let Some(about) = program.get_about() {
        command = command.about(about.clone());
    }
    command
}

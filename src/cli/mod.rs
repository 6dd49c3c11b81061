//! The command line: one file per command; only this layer prints.
//!
//! Commands that concern a running server talk to it over HTTP, like any client. `rebuild`, `secret` and `events
//! inspect` and `skip` also work on the stores themselves while no server runs.

mod apply;
mod backup;
mod bindings;
mod check;
mod client;
mod completions;
mod copy;
mod dev;
mod driver_host;
mod errors;
mod events;
mod failure;
mod global;
mod hook;
mod identity;
mod init;
mod json_log;
mod log;
mod man;
mod model;
mod module;
mod output;
mod pinned;
mod plugin;
mod rebuild;
#[cfg(test)]
mod reference;
mod runtime;
mod sdk;
mod secret;
mod serve;
mod skip;
mod templates;
mod token;
mod traces;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::failure::{Failure, Result};
use self::global::Global;
use self::runtime::block_on;
#[cfg(target_os = "linux")]
use crate::hooks::capabilities::process;
use crate::hooks::engines;

/// Models as a REST API over an event log, with sandboxed hooks around every change.
///
/// Without a command, `snaphook` serves: it reads config.toml in the working directory, or uses the defaults.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<CliCommand>,
}

const EXAMPLES: &str = "\
Examples:
  snaphook init shop                             create a project: a configuration, a model and a hook
  snaphook                                       serve as configured in config.toml
  snaphook check                                 report all errors in config.toml, with their lines
  snaphook dev                                   serve, and bind each hook of `hooks/` when its file is saved
  snaphook backup /mnt/shop.backup               back up everything to one file while the server runs
  snaphook apply --plan                          show what `hooks/` would change on the running server
  snaphook hook deploy hooks/movie/preCreate.ts  bind a hook; the path names model and phase
  snaphook hook rollback movie.preCreate         bind the previous hooks again
  snaphook hook test check.js --phase preCreate --after new.json
                                                 run a hook locally, without a server
  snaphook events --follow --model movie         print events as they happen, one JSON document per line
  snaphook errors retry --model movie --dry-run  count the failed post hooks that a retry would run again
  printf %s \"$KEY\" | snaphook secret set mail-key
                                                 store a secret for hooks

`snaphook help <command>` describes each command.";

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Serve the API until SIGINT or SIGTERM
    ///
    /// After the first signal, running requests and hooks have 10 seconds to finish. A second signal stops the server immediately;
    /// it is ignored within one second of the first. SIGHUP, or a change of the file, reloads grants and limits.
    Serve,
    /// Report all errors in the configuration, with their lines
    Check,
    /// Rebuild the model store from the event log
    ///
    /// Asks the running server, or works on the stores directly if no server runs. No hook runs.
    Rebuild,
    Backup(backup::Backup),
    Restore(backup::Restore),
    Copy(copy::Copy),
    Events(events::Events),
    #[command(subcommand)]
    Errors(errors::Errors),
    #[command(subcommand)]
    Secret(secret::Secret),
    #[command(subcommand)]
    Token(token::Token),
    #[command(subcommand)]
    Hook(hook::HookCommand),
    #[command(subcommand)]
    Model(model::Model),
    #[command(subcommand)]
    Module(module::Module),
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    DriverHost(driver_host::DriverHost),
    Apply(apply::Apply),
    Dev(dev::Dev),
    Init(init::Init),
    Completions(completions::Completions),
    Man(man::Man),
    /// A process that compiles one hook; the server starts it
    #[command(hide = true)]
    Worker,
    /// A process that looks into one library with drivers; the server starts it
    #[command(hide = true)]
    PluginInspect {
        file: PathBuf,
    },
    /// A process in which V8 runs hooks; the server starts it
    #[command(hide = true)]
    V8Worker {
        /// Folder of the V8 library
        folder: PathBuf,
    },
    /// A process that cleans up after a server that was killed while programs ran; the server starts it
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Keeper,
}

/// Runs the program: what it prints and the code that it ends with. 2: the arguments are wrong.
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let command = command.unwrap_or(CliCommand::Serve);
    let level = if matches!(command, CliCommand::Serve | CliCommand::DriverHost(_)) { "info" } else { "warn" };
    if let Err(error) = log::init(global.log.as_deref().unwrap_or(level), global.log_format) {
        return output::fail(&error);
    }
    let result = match command {
        CliCommand::Serve => serve::serve(&global),
        CliCommand::Check => check::check(&global),
        CliCommand::Rebuild => block_on(rebuild::rebuild(&global)),
        CliCommand::Backup(command) => block_on(command.run(&global)),
        CliCommand::Restore(command) => block_on(command.run(&global)),
        CliCommand::Copy(command) => block_on(command.run(&global)),
        CliCommand::Events(command) => block_on(command.run(&global)),
        CliCommand::Errors(command) => block_on(command.run(&global)),
        CliCommand::Secret(command) => block_on(command.run(&global)),
        CliCommand::Token(command) => block_on(command.run(&global)),
        CliCommand::Hook(command) => block_on(command.run(&global)),
        CliCommand::Model(command) => block_on(command.run(&global)),
        CliCommand::Module(command) => command.run(),
        CliCommand::Plugin(command) => command.run(&global),
        CliCommand::DriverHost(command) => command.run(&global),
        CliCommand::Apply(command) => block_on(command.run(&global)),
        CliCommand::Dev(command) => command.run(&global),
        CliCommand::Init(command) => command.run(),
        CliCommand::Completions(command) => command.run(&Cli::command()),
        CliCommand::Man(command) => command.run(&Cli::command()),
        CliCommand::Worker => engines::serve_as_worker(),
        CliCommand::PluginInspect { file } => plugin::inspect(&file),
        CliCommand::V8Worker { folder } => work(&folder),
        #[cfg(target_os = "linux")]
        CliCommand::Keeper => process::serve_as_keeper(),
    };
    match result {
        // Whoever read the output has had enough.
        Ok(()) | Err(Failure::OutputClosed) => engines::exit(0),
        Err(error) => {
            output::fail(&error);
            engines::exit(error.exit_code())
        }
    }
}

#[cfg(target_os = "linux")]
fn work(folder: &std::path::Path) -> Result<()> {
    engines::serve_as_v8_worker(folder)
}

#[cfg(not(target_os = "linux"))]
fn work(_: &std::path::Path) -> Result<()> {
    Err(Failure::new("V8 workers are processes of Linux"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_pages_of_commands() {
        reference::check(Cli::command());
    }

    #[test]
    fn no_command_serves() {
        assert!(Cli::try_parse_from(["snaphook", "--config", "x.toml"]).unwrap().command.is_none());
        assert!(matches!(Cli::try_parse_from(["snaphook", "serve"]).unwrap().command, Some(CliCommand::Serve)));
    }
}

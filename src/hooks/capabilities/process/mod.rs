//! `process`: programs that post hooks may start.
//!
//! The grant names the real path of one program and one pattern per argument. The program runs without a shell. It gets
//! only the environment variables that the grant lists, a new temporary directory, no open files except its three
//! pipes, and limits on time, memory, output, files and processes; on Linux also a sandbox (see [`sandbox`]).
//!
//! A `*` in an argument's pattern only matches plain text: an argument that starts with `-` (an option), starts with
//! `/` (an absolute path) or contains a `..` segment only matches if the pattern itself does so. A lone `-`, which by
//! convention means standard input, counts as text.

#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod ending;
#[cfg(target_os = "linux")]
mod keeper;
#[cfg(target_os = "linux")]
pub(in crate::hooks) mod run;
#[cfg(not(target_os = "linux"))]
#[path = "elsewhere.rs"]
pub(in crate::hooks) mod run;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(all(test, target_os = "linux"))]
mod tests;

use snaphook_identity::glob;

use super::super::access::{AccessCode, AccessError};
use super::super::grants::{Capability, toml_string};
use super::super::session::{HOST_TIME_POST_MAX, HostError, ProcessCommand, ProcessOutput, Session};
use super::check_name;
use super::read::too_large;
use crate::config::{Grant, PROCESS_TIMEOUT_MAX, ProcessGrant};
use crate::telemetry::line::shortened;
#[cfg(target_os = "linux")]
pub use keeper::serve as serve_as_keeper;
pub use run::Processes;

const ARGS_MAX: usize = 256;
const ARGS_BYTES_MAX: usize = 64 * 1024;
const STDIN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How much of an argument is shown in messages and in the lines to add.
const ARG_SHOWN_MAX: usize = 100;

/// Otherwise a program could be killed although the grant allows its run time.
const _: () = assert!(PROCESS_TIMEOUT_MAX.as_secs() + run::GRACE.as_secs() < HOST_TIME_POST_MAX.as_secs());

impl Session {
    /// Runs a program to its end and returns its output. A program that exits with an error is not an error of this
    /// call.
    pub async fn process_run(&self, command: ProcessCommand) -> Result<ProcessOutput, HostError> {
        self.count_call()?;
        let args_bytes: usize = command.args.iter().map(String::len).sum();
        if command.args.len() > ARGS_MAX || args_bytes > ARGS_BYTES_MAX {
            return Err(too_large("the list of arguments", args_bytes, ARGS_BYTES_MAX).into());
        }
        if command.stdin.len() > STDIN_BYTES_MAX {
            return Err(too_large("the standard input", command.stdin.len(), STDIN_BYTES_MAX).into());
        }
        check_name("the path of a program", &command.program)?;
        let mut env_bytes = 0;
        for (name, value) in &command.env {
            check_name("the name of a variable", name)?;
            env_bytes += name.len() + value.len();
        }
        if command.env.len() > ARGS_MAX || env_bytes > ARGS_BYTES_MAX {
            return Err(too_large("the environment", env_bytes, ARGS_BYTES_MAX).into());
        }
        let env = command.env.iter().flat_map(|(name, value)| [name, value]);
        if command.args.iter().chain(env).chain([&command.program]).any(|text| text.contains('\0')) {
            return Err(AccessError::new(AccessCode::Invalid, "a program's arguments cannot contain NUL").into());
        }
        let grant = self.check_process(&command)?;
        let timeout = command.timeout.map_or(grant.timeout, |asked| asked.min(grant.timeout));
        let what = format!("`{}`", command.program);
        let mut held = self.hold(command.stdin.len())?;
        let call = async {
            let _slot = self.outside_slot().await;
            self.services.processes.run(self.share_key(), grant, command, timeout).await
        };
        // The program is killed at its own limit; the message contains what it printed until then.
        let output = self.within(timeout + run::GRACE, &what, call).await?;
        held.grow(output.stdout.len() + output.stderr.len())?;
        Ok(output)
    }

    /// Returns the grant that allows the command.
    fn check_process(&self, command: &ProcessCommand) -> Result<&ProcessGrant, HostError> {
        let shown = show(command);
        let found = self.granted.process.iter().find(|grant| opens(grant, command));
        let verdict = match found {
            Some(grant) => not_a_link(grant),
            None => Err(self.granted.denial(
                Capability::Process,
                &format!("process `{shown}`"),
                &grant_value(command),
                |grant: &Grant| grant.process.iter().any(|grant| opens(grant, command)),
            )),
        };
        self.check(Capability::Process, shown, verdict)?;
        found.ok_or_else(|| AccessError::new(AccessCode::Denied, "no grant").into())
    }
}

/// Whether a grant allows this program with these arguments and variables.
fn opens(grant: &ProcessGrant, command: &ProcessCommand) -> bool {
    grant.program.as_os_str() == command.program.as_str()
        && grant.args.len() == command.args.len()
        && grant.args.iter().zip(&command.args).all(|(pattern, arg)| arg_matches(pattern, arg))
        // A hook cannot set a variable that has a value in the grant.
        && command.env.iter().all(|(name, _)| matches!(grant.env.get(name), Some(None)))
}

/// Whether an argument matches the pattern, including the rules for options and paths.
fn arg_matches(pattern: &str, arg: &str) -> bool {
    if !pattern.contains('*') {
        return pattern == arg;
    }
    let option = |text: &str| text.starts_with('-');
    let absolute = |text: &str| text.starts_with(['/', '\\']);
    let climbs = |text: &str| text.split(['/', '\\']).any(|segment| segment == "..");
    glob::matches(pattern, arg)
        && (!option(arg) || arg == "-" || option(pattern))
        && (!absolute(arg) || absolute(pattern))
        && (!climbs(arg) || climbs(pattern))
}

/// Rejects a granted path that is, or goes through, a symbolic link: its target could be changed later.
fn not_a_link(grant: &ProcessGrant) -> Result<(), AccessError> {
    let program = &grant.program;
    let failed = |code, message: String| Err(AccessError::new(code, message));
    match std::fs::canonicalize(program) {
        Ok(real) if real == *program => Ok(()),
        Ok(real) => failed(
            AccessCode::Denied,
            format!(
                "the granted program `{}` is, or is reached through, a symbolic link; grant the real path `{}`",
                program.display(),
                real.display()
            ),
        ),
        Err(error) => failed(AccessCode::Failed, format!("the granted program `{}`: {error}", program.display())),
    }
}

/// The TOML value that allows exactly this command.
fn grant_value(command: &ProcessCommand) -> String {
    let args: Vec<String> = command.args.iter().map(|arg| toml_string(&pattern(arg))).collect();
    let mut value = format!("[{{ program = {}, args = [{}]", toml_string(&command.program), args.join(", "));
    if !command.env.is_empty() {
        let names: Vec<String> = command.env.iter().map(|(name, _)| format!("{} = true", toml_string(name))).collect();
        value.push_str(&format!(", env = {{ {} }}", names.join(", ")));
    }
    value.push_str(" }]");
    value
}

/// The command as one line.
fn show(command: &ProcessCommand) -> String {
    let mut text = command.program.clone();
    for arg in &command.args {
        text.push(' ');
        text.push_str(&shortened(arg, ARG_SHOWN_MAX));
    }
    for (name, _) in &command.env {
        text.push_str(&format!(" (with {name})"));
    }
    text
}

/// The pattern that allows an argument; for a long one, its beginning followed by `*`.
fn pattern(arg: &str) -> String {
    match arg.len() > ARG_SHOWN_MAX {
        true => format!("{}*", &arg[..arg.floor_char_boundary(ARG_SHOWN_MAX)]),
        false => arg.to_owned(),
    }
}

//! Generates `docs/cli.md` and `packaging/man` from the definitions of commands and flags, and compares them with the files.
//! `SNAPHOOK_BLESS=1 cargo test --workspace --lib the_pages_of_` writes the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command};

use super::man;

const PAGE: &str = "docs/cli.md";
const MANUAL: &str = "packaging/man";

/// The text before the commands.
const HEAD: &str = "\
# Command line

<!-- Generated: see src/cli/reference.rs. -->

`snaphook help COMMAND` prints the same on the terminal, `snaphook man DIRECTORY` writes manual pages, and `snaphook completions
SHELL` makes a shell complete commands and flags.

Commands that concern a running server talk to it over its REST API: the one at `--url`, or else the one that the configuration
names. `backup`, `rebuild`, `secret`, `token`, `events inspect` and `events skip` work on the stores themselves if no server runs
there. Results go to stdout, everything else to stderr.

| exit code | |
| --- | --- |
| 0 | success |
| 1 | the command failed; stderr has the reason, with the line of `config.toml` if the error is there |
| 2 | the arguments are wrong |
| 3 | nothing was done: a step of `apply --plan` would fail, or a compiler is missing |
| 130, 143 | SIGINT or SIGTERM ended the command |
";

/// Fails if a file differs from what the commands generate.
#[track_caller]
pub(super) fn check(mut program: Command) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    man::write(&program, folder.path()).unwrap();
    // Propagates global options to the commands.
    program.build();
    let mut made = files(folder.path(), MANUAL);
    made.insert(PAGE.to_owned(), page(&program));
    if std::env::var_os("SNAPHOOK_BLESS").is_some() {
        let _ = std::fs::remove_dir_all(root.join(MANUAL));
        for (path, text) in &made {
            std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            std::fs::write(root.join(path), text).unwrap();
        }
    }
    let mut kept = files(&root.join(MANUAL), MANUAL);
    kept.insert(PAGE.to_owned(), std::fs::read_to_string(root.join(PAGE)).unwrap_or_default());
    let differs = |path: &&String| made.get(*path) != kept.get(*path);
    let mut differing: Vec<_> = made.keys().chain(kept.keys()).filter(differs).collect();
    differing.sort();
    differing.dedup();
    assert!(
        differing.is_empty(),
        "{differing:?} differ from the commands; `SNAPHOOK_BLESS=1 cargo test --workspace --lib the_pages_of_` \
         writes them"
    );
}

/// Texts by their paths from the root of the repository.
fn files(folder: &Path, name: &str) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let text = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        let file = entry.file_name().into_string().unwrap();
        (format!("{name}/{file}"), std::fs::read_to_string(entry.path()).unwrap())
    };
    entries.map(text).collect()
}

fn page(program: &Command) -> String {
    let mut page = HEAD.to_owned();
    let is_global = |arg: &&Arg| arg.is_global_set();
    page.push_str("\n## Options of every command\n\n");
    page.push_str(&table(program.get_arguments().filter(is_global)));
    for command in program.get_subcommands().filter(|command| !command.is_hide_set()) {
        describe(command, &[program.get_name()], &mut page);
    }
    page
}

fn describe(command: &Command, parents: &[&str], page: &mut String) {
    let path: Vec<&str> = parents.iter().copied().chain([command.get_name()]).collect();
    let subcommands: Vec<_> =
        command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help").collect();
    if command.get_name() == "help" {
        return;
    }
    let _ = write!(page, "\n{} `{}`\n\n", "#".repeat(path.len()), path.join(" "));
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    page.push_str(&prose(&about));
    let aliases: Vec<_> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        let _ = write!(page, "Also {}.\n\n", aliases.join(", "));
    }
    let mut usage = command.clone();
    let usage = usage.render_usage().to_string();
    let _ = writeln!(page, "```text shown\n{}\n```", usage.trim_start_matches("Usage: "));
    let own: Vec<_> = command.get_arguments().filter(|arg| !arg.is_global_set() && !is_help(arg)).collect();
    if !own.is_empty() {
        let _ = write!(page, "\n{}", table(own.into_iter()));
    }
    for subcommand in subcommands {
        describe(subcommand, &path, page);
    }
}

fn is_help(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

/// Help text as Markdown; examples become code.
fn prose(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| match paragraph.strip_prefix("Example: ") {
        Some(example) => format!("Example: `{}`\n\n", example.trim()),
        None => format!("{}\n\n", paragraph.trim()),
    });
    paragraphs.collect()
}

fn table<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    let rows = args.filter(|arg| !arg.is_hide_set() && !is_help(arg)).map(|arg| {
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let mut help = in_cell(&help);
        let values: Vec<_> = match arg.get_action().takes_values() {
            true => arg.get_possible_values().into_iter().filter(|value| !value.is_hide_set()).collect(),
            false => Vec::new(),
        };
        if !values.is_empty() {
            let values: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
            let colon = if help.is_empty() { "" } else { ": " };
            let _ = write!(help, "{colon}{}", values.join(", "));
        }
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if arg.get_action().takes_values() && !defaults.is_empty() {
            let _ = write!(help, " [default: {}]", defaults.join(", "));
        }
        if let Some(variable) = arg.get_env() {
            let _ = write!(help, " (`{}`)", variable.to_string_lossy());
        }
        format!("| {} | {help} |\n", in_cell(&name(arg)))
    });
    format!("| | |\n| --- | --- |\n{}", rows.collect::<String>())
}

/// On one line, with its bars escaped: they would end the cell.
fn in_cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// As it is written on the command line.
fn name(arg: &Arg) -> String {
    let value = match arg.get_action().takes_values() {
        true => {
            arg.get_value_names().unwrap_or_default().iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" ")
        }
        false => String::new(),
    };
    match (arg.get_short(), arg.get_long()) {
        (None, None) => format!("`{value}`"),
        (short, Some(long)) => {
            let short = short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
            let value = if value.is_empty() { value } else { format!(" {value}") };
            format!("{short}`--{long}{value}`")
        }
        (Some(short), None) => format!("`-{short} {value}`"),
    }
}

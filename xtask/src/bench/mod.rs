//! `cargo xtask bench`: measures the release binary against its performance goals.
//!
//! Each row starts its own server in a new folder on a free loopback port, sends HTTP requests as any client would, and
//! stops it. Server and load generator run on the same machine.

mod http;
mod load;
mod machine;
mod report;
mod rows;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use crate::repository::{root, target_directory};
use crate::shell::{Result, cargo, run as run_command, section};
use report::{Report, Row};
use rows::{ROWS, compare};

/// The options of `bench`.
#[derive(Debug)]
pub(crate) struct Options {
    /// Only rows whose name contains this.
    only: Option<String>,
    /// Length of each measured run of load.
    run: Duration,
    /// Also measure what takes many minutes.
    long: bool,
    /// An existing build of the server, to compare builds.
    binary: Option<PathBuf>,
    /// Another build of the server. The builds are compared, instead of measuring the rows.
    against: Option<PathBuf>,
}

/// The parameters of every row.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) binary: PathBuf,
    /// Folder for the servers' data. It is on the disk of the checkout, because a file system in memory would be
    /// unrealistically fast.
    pub(crate) scratch: tempfile::TempDir,
    pub(crate) run: Duration,
    pub(crate) long: bool,
}

pub(crate) fn run(args: &[String]) -> Result {
    let options = match parse(args)? {
        Some(options) => options,
        None => {
            ROWS.iter().for_each(|(name, what, _)| println!("{name:<20} {what}"));
            return Ok(());
        }
    };
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| name.contains(only));
    if options.against.is_none() && !ROWS.iter().any(|(name, ..)| wanted(name)) {
        return Err("no row has that name; `cargo xtask bench --list` names them".into());
    }

    let target = target_directory()?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            section("build");
            run_command(cargo().args(["build", "--release", "--bin", "snaphook"]).current_dir(root()))?;
            target.join("release/snaphook")
        }
    };
    let scratch = tempfile::Builder::new().prefix("bench-").tempdir_in(&target);
    let bench = Bench {
        binary,
        scratch: scratch.map_err(|error| format!("cannot create a folder in {}: {error}", target.display()))?,
        run: options.run,
        long: options.long,
    };
    machine::raise_open_files_limit();

    if let Some(other) = &options.against {
        let compared = compare(&bench, other, &wanted)?;
        let report = Report { rows: compared, machine: Vec::new(), seconds: options.run.as_secs() };
        println!("{}", report.table());
        return Ok(());
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut failed = Vec::new();
    for (name, what, measure) in ROWS.iter().filter(|(name, ..)| wanted(name)) {
        section(&format!("{name}: {what}"));
        match measure(&bench) {
            Ok(measured) => {
                measured.iter().for_each(|row| println!("{}", row.line()));
                rows.extend(measured);
            }
            Err(message) => {
                println!("failed: {message}");
                failed.push(format!("{name}: {message}"));
            }
        }
    }

    let report = Report { rows, machine: machine::describe(bench.scratch.path())?, seconds: options.run.as_secs() };
    section("result");
    println!("{}", report.table());
    if options.only.is_none() && options.binary.is_none() && failed.is_empty() {
        let path = root().join("benches/results.md");
        std::fs::write(&path, report.page()).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        println!("written to benches/results.md");
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("{} rows failed:\n{}", failed.len(), failed.join("\n"))) }
}

/// Parses the options; `None` for `--list`.
fn parse(args: &[String]) -> Result<Option<Options>> {
    let mut options = Options { only: None, run: Duration::from_secs(5), long: false, binary: None, against: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => return Ok(None),
            "--long" => options.long = true,
            "--only" => options.only = Some(args.next().ok_or("`--only` needs a name")?.clone()),
            "--binary" => options.binary = Some(args.next().ok_or("`--binary` needs a path")?.into()),
            "--against" => options.against = Some(args.next().ok_or("`--against` needs a path")?.into()),
            "--seconds" => {
                let seconds =
                    args.next().and_then(|text| text.parse().ok()).filter(|seconds| (1..=600).contains(seconds));
                options.run = Duration::from_secs(seconds.ok_or("`--seconds` needs a number from 1 to 600")?);
            }
            other => return Err(format!("unknown argument `{other}` of `bench`")),
        }
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse_words(words: &str) -> Result<Option<Options>> {
        parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_and_refused() {
        let options = parse_words("--only create --seconds 2 --long").unwrap().unwrap();
        assert_eq!((options.only.as_deref(), options.run.as_secs(), options.long), (Some("create"), 2, true));
        assert!(parse_words("--list").unwrap().is_none());
        for wrong in ["--seconds", "--seconds 0", "--seconds x", "--only", "--binary", "--against", "--fast"] {
            assert!(parse_words(wrong).is_err(), "{wrong}");
        }
    }
}

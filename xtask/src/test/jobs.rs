//! Which programs run, and in which of the two lanes.

use std::collections::HashSet;
use std::process::Command;

use super::compile::Program;
use super::lanes::Job;
use super::lints::Lints;
use super::prepare::TestSetup;
use super::scratch::Scratch;
use crate::repository::root;
use crate::shell::cargo;

/// The black-box tests: package and program. Some of them measure how little a server does when idle, so they have
/// their own lane.
const BLACK_BOX: (&str, &str) = ("snaphook", "it");

/// Black-box tests that start compilers, which would affect measurements, so they run separately.
const COMPILING: [&str; 2] = ["cli::authoring", "docs::every_block"];

/// Black-box tests of hostile input, which also run with other stores than the default ones; with `--long` also those
/// of hostile hooks.
const HOSTILE: [&str; 4] = ["bad_input", "json_values", "too_complex", "hostile::"];
const HOSTILE_IN_SHORT: usize = 3;

/// The names of those stores in the tests.
const OTHER_STORES: [&str; 2] = ["file", "library"];

/// Packages whose tests are about files, which are on the disk for them.
const ON_DISK: [&str; 2] = ["snaphook-file", "snaphook-sqlite"];

/// The jobs that the first lane begins with, and the jobs that both lanes then take one after another.
pub(super) fn of(
    programs: &[Program],
    prepared: &TestSetup,
    scratch: Option<&Scratch>,
    is_long: bool,
    lints: &Lints,
) -> (Vec<Job>, Vec<Job>) {
    let in_memory = |program: &Program| {
        let mut command = test(program, prepared);
        if let (Some(scratch), false) = (scratch, ON_DISK.contains(&program.package.as_str())) {
            command.env("TMPDIR", scratch.folder());
        }
        command
    };
    let is_excluded = |program: &Program| prepared.without_packages.contains(&program.package.as_str());
    let (black_box, others): (Vec<&Program>, Vec<&Program>) = programs
        .iter()
        .filter(|program| !is_excluded(program))
        .partition(|program| (program.package.as_str(), program.target.as_str()) == BLACK_BOX);
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for program in black_box {
        // These come first: meanwhile the second lane completes some of the jobs that would otherwise run during the
        // measurements. Their files are on the disk because they are too large for memory.
        let mut compiling = test(program, prepared);
        compiling.args(COMPILING);
        first.push(Job::new("it, tests that start compilers", compiling));
        let mut measuring = in_memory(program);
        timed(&mut measuring).args(COMPILING.iter().flat_map(|name| ["--skip", name]));
        first.push(Job::new("it", measuring));
        for stores in OTHER_STORES {
            let mut hostile = in_memory(program);
            timed(&mut hostile).args(if is_long { &HOSTILE[..] } else { &HOSTILE[..HOSTILE_IN_SHORT] });
            hostile.env("SNAPHOOK_TEST_STORES", stores);
            first.push(Job::new(format!("it, hostile input on {stores}"), hostile));
        }
    }
    let mut titles = HashSet::new();
    for program in others {
        let title = match program.is_unit {
            true => format!("{}, unit tests", program.package),
            false => format!("{}, {}", program.package, program.target),
        };
        // A package may have a library and a program of the same name, but titles must be distinct because they name
        // the output files.
        let title = if titles.insert(title.clone()) { title } else { format!("{title} of the program") };
        let mut command = in_memory(program);
        timed(&mut command);
        rest.push(Job::new(title, command));
    }
    rest.push(Job::new("tests in documentation", documentation(prepared, lints)));
    (first, rest)
}

/// Runs a program as cargo would.
fn test(program: &Program, prepared: &TestSetup) -> Command {
    let mut command = Command::new(&program.file);
    command.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
    command.envs(prepared.environment.iter().cloned()).args(prepared.skipped_tests());
    command
}

/// Makes a program report the duration of each test. That option is unstable and enabled by a variable that compilers
/// would also read, so it is not used for tests that start compilers.
fn timed(command: &mut Command) -> &mut Command {
    command.args(["-Z", "unstable-options", "--report-time"]).env("RUSTC_BOOTSTRAP", "1")
}

/// Tests in comments, which cargo compiles when it runs them, with the libraries that were compiled with the same lints.
fn documentation(prepared: &TestSetup, lints: &Lints) -> Command {
    let mut command = cargo();
    lints.apply(&mut command);
    command.args(["test", "--workspace", "--doc", "--no-fail-fast"]).args(prepared.excluded_packages()).arg("--");
    command.args(prepared.skipped_tests()).envs(prepared.environment.iter().cloned()).current_dir(root());
    command
}

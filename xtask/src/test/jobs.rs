//! What is run, and in which of the two lanes.

use std::collections::HashSet;
use std::process::Command;

use super::compile::Program;
use super::lanes::Job;
use super::prepare::TestSetup;
use super::scratch::Scratch;
use crate::repository::root;
use crate::shell::cargo;

/// The black-box tests: package and program. Some of them measure how calm a server stays, so they have a lane of their own.
const BLACK_BOX: (&str, &str) = ("snaphook", "it");

/// Those among them that start compilers, whose work others would measure: they run by themselves.
const COMPILING: [&str; 2] = ["cli::authoring", "docs::every_block"];

/// Those of hostile input, which also run on other stores than the default ones; with `--long` those of hostile hooks as well.
const HOSTILE: [&str; 4] = ["bad_input", "json_values", "too_complex", "hostile::"];
const HOSTILE_IN_SHORT: usize = 3;

/// Those stores, as the tests call them.
const OTHER_STORES: [&str; 2] = ["file", "library"];

/// Packages whose tests are about files: they have them on the disk.
const ON_DISK: [&str; 2] = ["snaphook-file", "snaphook-sqlite"];

/// What the first lane begins with, and what both take one after another.
pub(super) fn of(
    programs: &[Program],
    prepared: &TestSetup,
    scratch: Option<&Scratch>,
    is_long: bool,
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
        // First: while they run, the second lane is done with some of what would be beside the measurements. What they build is
        // too much for memory.
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
        // A package with a library and a program of the same name. Outputs go to files that are named for the titles.
        let title = if titles.insert(title.clone()) { title } else { format!("{title} of the program") };
        let mut command = in_memory(program);
        timed(&mut command);
        rest.push(Job::new(title, command));
    }
    rest.push(Job::new("tests in documentation", documentation(prepared)));
    (first, rest)
}

/// A program as cargo would run it.
fn test(program: &Program, prepared: &TestSetup) -> Command {
    let mut command = Command::new(&program.file);
    command.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
    command.envs(prepared.environment.iter().cloned()).args(prepared.skipped_tests());
    command
}

/// Has a program say how long each test took. That is an unstable option, allowed by a variable that compilers would see too:
/// not for tests that start them.
fn timed(command: &mut Command) -> &mut Command {
    command.args(["-Z", "unstable-options", "--report-time"]).env("RUSTC_BOOTSTRAP", "1")
}

/// Tests in comments: cargo compiles them when it runs them.
fn documentation(prepared: &TestSetup) -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace", "--doc", "--no-fail-fast"]).args(prepared.excluded_packages()).arg("--");
    command.args(prepared.skipped_tests()).envs(prepared.environment.iter().cloned()).current_dir(root());
    command
}

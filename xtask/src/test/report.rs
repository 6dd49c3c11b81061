//! The report of a test run: which tests failed, and which took longest.

use std::time::Duration;

use super::lanes::Ended;
use crate::shell::{Result, section};

/// How many of the longest programs and tests are printed.
const PROGRAMS: usize = 12;
const TESTS: usize = 25;

/// The error contains excerpts of the output of failing tests, without stack frames: of this many tests, this many
/// lines each, cut to this many characters. It is the last output of a run, and often all that is read.
const EXCERPTS: usize = 4;
const EXCERPT_LINES: usize = 24;
const LINE: usize = 300;

/// Prints the report. An error if any test failed.
pub(super) fn print(ended: &[Ended]) -> Result {
    let tests: Vec<(&str, Test<'_>)> =
        ended.iter().flat_map(|job| tests(&job.output).map(|test| (job.title.as_str(), test))).collect();

    section("what took longest");
    let mut programs: Vec<(Duration, String)> = ended.iter().map(|job| (job.took, job.title.clone())).collect();
    longest(&mut programs, PROGRAMS);
    let mut single: Vec<(Duration, String)> =
        tests.iter().filter_map(|(title, test)| Some((test.took?, format!("{title}: {}", test.name)))).collect();
    longest(&mut single, TESTS);

    let failed = failures(ended, &tests);
    if failed.is_empty() {
        return Ok(());
    }
    section("failed");
    failed.iter().for_each(|what| println!("{what}"));
    Err(format!("failed: {}{}", failed.join(", "), excerpts(ended, &tests)))
}

/// The first lines of the output of failing tests.
fn excerpts(ended: &[Ended], tests: &[(&str, Test<'_>)]) -> String {
    let failing = tests.iter().filter(|(_, test)| test.is_failed).filter_map(|(title, test)| {
        let job = ended.iter().find(|job| job.title == *title)?;
        Some((title, test.name, written_by(&job.output, test.name)?))
    });
    let mut text = String::new();
    for (title, name, lines) in failing.take(EXCERPTS) {
        text.push_str(&format!("\n\n--- {title}: {name}"));
        for line in lines.iter().take(EXCERPT_LINES) {
            text.push('\n');
            text.extend(line.chars().take(LINE));
        }
    }
    text
}

/// The output of a test, as the harness prints it after all tests have run.
fn written_by<'a>(output: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let head = format!("---- {name} stdout ----");
    let mut lines = output.lines().skip_while(|line| *line != head);
    lines.next()?;
    let is_end = |line: &str| line.starts_with("---- ") && line.ends_with(" stdout ----") || line == "failures:";
    Some(lines.take_while(|line| !is_end(line)).filter(|line| !line.is_empty() && !is_frame(line)).collect())
}

/// `  12: a::function` and `             at ./src/a.rs:1:2`.
fn is_frame(line: &str) -> bool {
    let text = line.trim_start();
    let is_numbered = text.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
    text.len() < line.len() && (is_numbered || text.starts_with("at "))
}

fn longest(all: &mut [(Duration, String)], count: usize) {
    all.sort_by_key(|(took, _)| std::cmp::Reverse(*took));
    all.iter().take(count).for_each(|(took, name)| println!("{:>7.1} s  {name}", took.as_secs_f64()));
    println!();
}

/// The names of the failed tests. A program that failed without naming a test is listed with how it ended.
fn failures(ended: &[Ended], tests: &[(&str, Test<'_>)]) -> Vec<String> {
    let mut failures = Vec::new();
    for job in ended {
        let before = failures.len();
        let of_job = tests.iter().filter(|(title, test)| *title == job.title && test.is_failed);
        failures.extend(of_job.map(|(title, test)| format!("{title}: {}", test.name)));
        if let (Some(failure), true) = (&job.failure, failures.len() == before) {
            failures.push(format!("{}: {failure}", job.title));
        }
    }
    failures
}

/// What a program reports about one test.
#[derive(Debug, PartialEq)]
struct Test<'a> {
    name: &'a str,
    is_failed: bool,
    took: Option<Duration>,
}

/// Reads lines such as `test a::b ... ok <0.123s>`.
fn tests(output: &str) -> impl Iterator<Item = Test<'_>> {
    output.lines().filter_map(|line| {
        let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let seconds = result.split_once('<').and_then(|(_, time)| time.strip_suffix("s>")?.parse().ok());
        let took = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Some(Test { name, is_failed: result.starts_with("FAILED"), took })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test a::b ... ok <1.250s>
test c - should panic ... FAILED <0.100s>
test d ... ok

failures:

---- c - should panic stdout ----
seed 7
panicked at a.rs:1:2:
left is not right
stack backtrace:
   0: a::b
             at ./a.rs:1:2

failures:
    c - should panic

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.26s
";

    fn ended(title: &str, output: &str, failure: Option<&str>) -> Ended {
        let failure = failure.map(str::to_owned);
        Ended { title: title.into(), took: Duration::ZERO, output: output.into(), failure }
    }

    #[test]
    fn lines_of_tests_are_read() {
        let test = |name, is_failed, took| Test { name, is_failed, took };
        assert_eq!(
            tests(OUTPUT).collect::<Vec<_>>(),
            [
                test("a::b", false, Some(Duration::from_millis(1250))),
                test("c - should panic", true, Some(Duration::from_millis(100))),
                test("d", false, None),
            ]
        );
    }

    #[test]
    fn every_failure_has_a_name() {
        let all = [
            ended("one", OUTPUT, Some("exit status: 101")),
            ended("two", "running 1 test\n", Some("signal: 6 (SIGABRT)")),
            ended("three", "test a ... ok <0.001s>\n", None),
        ];
        let read: Vec<(&str, Test<'_>)> =
            all.iter().flat_map(|job| tests(&job.output).map(|test| (job.title.as_str(), test))).collect();
        assert_eq!(failures(&all, &read), ["one: c - should panic", "two: signal: 6 (SIGABRT)"]);
        let error = print(&all).unwrap_err();
        assert!(error.starts_with("failed: one: c - should panic, two: signal"), "{error}");
        assert!(
            error.ends_with(
                "\n--- one: c - should panic\nseed 7\npanicked at a.rs:1:2:\nleft is not right\nstack backtrace:"
            ),
            "{error}"
        );
        assert!(print(&all[2..]).is_ok());
    }
}

//! Follows the pages of `docs` and `docs/hooks` as a newcomer would: from an empty folder, with only the binary,
//! running every block of every page in order. At the end it prints the number of commands and the minutes of each
//! page.
//!
//! Each page has one folder and one shell. The info string of a block says what the test does with it:
//!
//! | info string | what the test does with the block |
//! | --- | --- |
//! | `LANGUAGE file=PATH` | writes it to that path, relative to the shell's current folder |
//! | `LANGUAGE excerpt=PATH` | checks that it appears verbatim in that file |
//! | `LANGUAGE source=PATH` | checks that it appears verbatim in that file of the repository |
//! | `sh` | runs it; it must succeed. Waits until `snaphook serve &` and `snaphook dev &` are ready |
//! | `sh fails` | runs it; it must fail |
//! | `sh eventually` | repeats it until its output matches the next `text` block |
//! | `text` | expected output of the `sh` block before it; `…` matches any text, alone on a line any lines |
//! | `toml config` | checks it with `snaphook check`, as part of a `config.toml` |
//! | `LANGUAGE shown` | does nothing: an excerpt, or for another machine |
//!
//! Any other block fails the test, including indented ones. Pages use `127.0.0.1:1337`, the test a free port. A page
//! that needs programs lists them in its first line: `<!-- needs: node, wasm32 -->`; without them the page is skipped,
//! or fails if `CI=true`. `server` means a running server in mode `open`. `SNAPHOOK_DOCS_PAGE=javascript` runs a single
//! page; `SNAPHOOK_DOCS_BINARY=PATH` uses another binary, such as a release. The README has a separate test (`demo`).

pub(crate) mod needs;
mod page;
mod shell;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use page::{Block, DocPage, Kind};
use shell::{Ended, Shell};

use crate::support::{is_ci, skip};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_block_runs() {
    let pages = Mutex::new(pages());
    let failures = Mutex::new(Vec::new());
    let followed = Mutex::new(Vec::new());
    // Builds that several pages need, such as the standard library for WebAssembly, are shared.
    let builds = tempfile::tempdir().expect("a folder");
    let work = || {
        while let Some(file) = { pages.lock().expect("no panic while locked").pop() } {
            let name = file.strip_prefix(repository().join("docs")).unwrap_or(&file).display().to_string();
            let started = Instant::now();
            match follow(&file, builds.path()) {
                Ok(commands) => {
                    let row = (name, commands, started.elapsed());
                    followed.lock().expect("no panic while locked").push(row);
                }
                Err(failure) => failures.lock().expect("no panic while locked").push(format!("{name}{failure}")),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let mut followed = followed.into_inner().expect("no panic while locked");
    followed.sort_unstable();
    print_table(&followed);
    let failures = failures.into_inner().expect("no panic while locked");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Prints the table where it is visible although the test succeeded.
fn print_table(followed: &[(String, usize, Duration)]) {
    let mut table = "a newcomer followed these pages:\ncommands  minutes  page\n".to_owned();
    for (page, commands, took) in followed {
        table.push_str(&format!("{commands:>8}  {:>7.2}  {page}\n", took.as_secs_f64() / 60.0));
    }
    // The test harness shows the output of print macros only for failed tests.
    let _ = std::io::stderr().write_all(table.as_bytes());
}

/// The pages by name; workers take them from the end, where the slow ones are.
fn pages() -> Vec<PathBuf> {
    let only = std::env::var("SNAPHOOK_DOCS_PAGE").ok();
    let entries = |folder: &str| std::fs::read_dir(repository().join(folder)).expect("a folder of pages");
    let mut pages: Vec<PathBuf> = ["docs", "docs/hooks"]
        .into_iter()
        .flat_map(entries)
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .filter(|path| only.as_deref().is_none_or(|only| path.file_stem().is_some_and(|stem| stem == only)))
        .collect();
    assert!(!pages.is_empty(), "no page of that name");
    pages.sort();
    pages
}

/// Follows one page to its end. Returns the number of commands; an error begins with its location in the page.
fn follow(file: &Path, builds: &Path) -> Result<usize, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!(": {error}"))?;
    let page = DocPage::parse(&text)?;
    let mut environment = match needs::environment(&page.needs) {
        Ok(environment) => environment,
        // Not `skip`, which would end the other pages too.
        Err(missing) if is_ci() => return Err(format!(": {missing}; with CI=true nothing may be skipped")),
        Err(missing) => {
            skip(&file.display().to_string(), &missing);
            return Ok(0);
        }
    };
    environment.push(("CARGO_BUILD_BUILD_DIR".to_owned(), builds.display().to_string()));
    let mut shell = Shell::start(environment)?;
    if page.needs.iter().any(|need| need == "server") {
        shell.write("config.toml", OPEN)?;
        shell.run("snaphook serve &", false)?;
    }
    for (index, block) in page.blocks.iter().enumerate() {
        let expected = match page.blocks.get(index + 1) {
            Some(Block { kind: Kind::Output, text, .. }) => Some(text.as_str()),
            _ => None,
        };
        run(&mut shell, block, expected).map_err(|what| format!(":{}: {what}", block.line))?;
    }
    shell.end().map_err(|what| format!(": at its end: {what}"))?;
    Ok(page.commands())
}

const OPEN: &str = "[server]\nmount-address = '127.0.0.1:1337'\n[auth]\nmode = 'open'\n";

fn run(shell: &mut Shell, block: &Block, expected: Option<&str>) -> Result<(), String> {
    match &block.kind {
        Kind::File(path) => shell.write(path, &block.text),
        Kind::Excerpt(path) => match shell.read(path)?.contains(&block.text) {
            true => Ok(()),
            false => Err(format!("`{path}` does not hold this:\n{}", block.text)),
        },
        Kind::Source(path) => match std::fs::read_to_string(repository().join(path)) {
            Ok(source) if source.contains(&block.text) => Ok(()),
            Ok(_) => Err(format!("`{path}` does not hold this:\n{}", block.text)),
            Err(error) => Err(format!("`{path}` cannot be read: {error}")),
        },
        // Compared together with the commands before it.
        Kind::Output | Kind::Shown => Ok(()),
        Kind::Config => shell.check(&block.text),
        Kind::Run { fails } => {
            let ended = shell.run(&block.text, *fails)?;
            check(&ended, expected)
        }
        Kind::Eventually => {
            let deadline = std::time::Instant::now() + crate::support::PATIENCE;
            loop {
                let ended = shell.try_run(&block.text)?;
                match check(&ended, expected) {
                    Ok(()) if ended.code == 0 => return Ok(()),
                    Err(failure) if std::time::Instant::now() > deadline => return Err(failure),
                    _ => {}
                }
            }
        }
    }
}

fn check(ended: &Ended, expected: Option<&str>) -> Result<(), String> {
    match expected {
        Some(expected) if !page::matches(expected, &ended.output) => {
            Err(format!("it should print\n{expected}\nand printed\n{}", ended.output))
        }
        _ => Ok(()),
    }
}

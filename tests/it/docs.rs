//! The pages of `docs/hooks`, and some of `docs`, keep their word: every block of every page runs, in order, as a reader would
//! follow it.
//!
//! One page is one folder and one shell. In a block's info string:
//!
//! | info string | what becomes of the block |
//! | --- | --- |
//! | `LANGUAGE file=PATH` | written to that path, seen from where the shell stands |
//! | `LANGUAGE excerpt=PATH` | must stand in that file as it is |
//! | `LANGUAGE source=PATH` | must stand in that file of the repository as it is |
//! | `sh` | run; it must succeed. `snaphook serve &` and `snaphook dev &` are waited for |
//! | `sh fails` | run; it must fail |
//! | `sh eventually` | run until the `text` block after it is what it prints |
//! | `text` | right after one of `sh`: what it prints; `…` stands for anything, alone on a line for any lines |
//!
//! Anything else fails the test, blocks that are only indented too. Pages serve at `127.0.0.1:1337`, the test on a free port. A page that needs programs
//! says so in its first line: `<!-- needs: node, wasm32 -->`; without them it is skipped, which `CI=true` forbids.
//! `SNAPHOOK_DOCS_PAGE=javascript` runs one page.

pub(crate) mod needs;
mod page;
mod shell;

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use page::{Block, Kind, Page};
use shell::{Ended, Shell};

use crate::support::{is_ci, skip};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_block_runs() {
    let pages = Mutex::new(pages());
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(file) = { pages.lock().expect("no panic while locked").pop() } {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match follow(&file) {
                Ok(()) => {}
                Err(failure) => failures.lock().expect("no panic while locked").push(format!("{name}{failure}")),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().expect("no panic while locked");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Pages of `docs` that run too.
const MORE: [&str; 2] = ["backup.md", "production.md"];

/// The pages, those that take long last so that they are taken first.
fn pages() -> Vec<PathBuf> {
    let only = std::env::var("SNAPHOOK_DOCS_PAGE").ok();
    let folder = repository().join("docs/hooks");
    let more = MORE.map(|name| repository().join("docs").join(name));
    let mut pages: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("docs/hooks")
        .map(|entry| entry.expect("an entry").path())
        .chain(more)
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .filter(|path| only.as_deref().is_none_or(|only| path.file_stem().is_some_and(|stem| stem == only)))
        .collect();
    assert!(!pages.is_empty(), "no page in {}", folder.display());
    pages.sort();
    pages
}

/// Follows one page to its end. An error begins with where in the page it is.
fn follow(file: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!(": {error}"))?;
    let page = Page::parse(&text)?;
    let environment = match needs::environment(&page.needs) {
        Ok(environment) => environment,
        // Not `skip`, which would end the other pages too.
        Err(missing) if is_ci() => return Err(format!(": {missing}; with CI=true nothing may be skipped")),
        Err(missing) => {
            skip(&file.display().to_string(), &missing);
            return Ok(());
        }
    };
    let mut shell = Shell::start(environment)?;
    for (index, block) in page.blocks.iter().enumerate() {
        let expected = match page.blocks.get(index + 1) {
            Some(Block { kind: Kind::Output, text, .. }) => Some(text.as_str()),
            _ => None,
        };
        run(&mut shell, block, expected).map_err(|what| format!(":{}: {what}", block.line))?;
    }
    shell.end().map_err(|what| format!(": at its end: {what}"))
}

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
        Kind::Output => Ok(()),
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

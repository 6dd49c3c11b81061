//! `cargo xtask`: the tasks of this repository besides `cargo build`.

mod bench;
mod ci;
mod deny;
mod guests;
mod modules;
mod native;
mod needs;
mod plugins;
mod repository;
mod runner;
mod sdk;
mod shell;
mod size;
mod test;
mod tidy;
mod v8;
mod zia;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  test [--long] [-- ARGS]
                   find or install what the tests need, build the guests, run tidy, then all tests;
                   ARGS go to `cargo test --workspace`. With CI=true nothing may be skipped; `--long` also runs
                   tests that take minutes
  ci               all checks before a change lands: format, test, clippy, deny, and the types of some crates on
                   Windows; prints how long each part took
  deny             check licences, versions and sources of all linked crates with cargo-deny, which is installed
                   into target/tools/
  tidy             check layers, unsafe code, the code map, the frozen WIT text, file heads and sizes
  v8               fetch V8 as a library into plugins/v8/, for the engine `v8`
  runner           rebuild the module that runs JavaScript hooks from its C sources and scripts
  guests           build only the WebAssembly guests in hooks/
  native           build some guests as native libraries too, and run their unit tests
  plugins [--release]
                   build the drivers as libraries, into target/plugins/<name>/
  modules [--release] [--zia-headers DIR] [--boost DIR]
                   build `snaphook-zia-bridge` beside the server's binary; the folders are those that the modules of
                   ZiaModuleAPISpec were built with
  sdk              generate the types of sdk/js from the WIT text
  size [BINARY]    check that the release binary has no symbols and at most 60 MB; builds it if none is named
  bench [--only NAME] [--seconds N] [--long] [--binary PATH] [--list]
                   measure the release binary against its goals; a run of all rows on a fresh build
                   is written to benches/results.md";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let result = match command.as_str() {
        "test" => test::run(&rest),
        "ci" => ci::run(&rest),
        "deny" => deny::run(&rest),
        "tidy" => tidy::run(&rest),
        "bench" => bench::run(&rest),
        "guests" => guests::run(&rest),
        "native" => native::run(&rest),
        "plugins" => plugins::run(&rest),
        "modules" => modules::run(&rest),
        "sdk" => sdk::run(&rest),
        "v8" => v8::run(&rest),
        "runner" => runner::run(&rest),
        "size" => size::run(&rest),
        "" | "help" | "-h" | "--help" => {
            println!("{USAGE}");
            return if command.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
        other => Err(format!("unknown command `{other}`\n\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

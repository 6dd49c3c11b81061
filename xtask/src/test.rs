//! `cargo xtask test`: everything that must hold, in one run. `--long` also tries what takes minutes: a connection that is cut
//! after each single byte.

use std::path::PathBuf;

use crate::repository::root;
use crate::shell::{Result, cargo, is_ci, run as run_command, section};
use crate::{guests, native, needs, plugins, tidy};

/// Tests that start compilers. They run by themselves: others measure how calm a server stays, on the same cores.
const COMPILING: [&str; 2] = ["cli::authoring", "docs::every_block"];

/// Tests that start servers of other projects: by their names, and those of whole packages.
const ON_SERVERS: [&str; 5] = ["cluster::", "the_page_has_what_the_drivers_say", "postgres", "nats", "redis"];
const ON_SERVERS_PACKAGES: [&str; 3] = ["snaphook-postgres", "snaphook-redis", "snaphook-nats"];

/// Tests of hostile input that also run on other stores than the default ones; with `--long` those of hostile hooks as well.
const HOSTILE: [&str; 4] = ["bad_input", "json_values", "too_complex", "hostile::"];
const HOSTILE_IN_SHORT: usize = 3;

/// Those stores, as the tests call them.
const OTHER_STORES: [&str; 2] = ["file", "library"];

/// Where the shared test data is, seen from the checkout.
const FILMS: &str = "../shared/data/movies.json";

pub(crate) fn run(args: &[String]) -> Result {
    let (is_long, args) = match args.split_first() {
        Some((first, rest)) if first == "--long" => (true, rest),
        _ => (false, args),
    };
    let args = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    let mut skipped: Vec<String> = Vec::new();
    let mut without: Vec<&str> = Vec::new();
    let mut packages = vec!["--workspace"];

    section("guests: WebAssembly hooks for the tests");
    let mut wasm_environment = None;
    let guests: Option<PathBuf> = match needs::wasm_toolchain() {
        Ok(toolchain) => {
            wasm_environment = Some(toolchain.environment());
            let folder = guests::build(&toolchain)?;
            skipped.extend(guests::build_others(&folder)?);
            Some(folder)
        }
        Err(reason) => {
            skipped.push(format!("tests of WebAssembly components: {reason}"));
            None
        }
    };

    section("native: hooks as libraries for the tests");
    native::build()?;

    section("plugins: drivers as libraries for the tests");
    let plugins = plugins::build(false)?;

    section("zia: the bridge and modules for the tests");
    let mut zia = None;
    match needs::cpp(None) {
        Ok(()) => zia = Some(crate::zia::for_tests()?),
        Err(reason) => skipped.push(format!("tests of modules of ZiaModuleAPISpec: {reason}")),
    }

    section("runner: the module of JavaScript hooks, built anew to be compared");
    let runner_code = match crate::runner::build() {
        Ok(code) => Some(code),
        Err(reason) => {
            skipped.push(format!("whether the JavaScript runner is what its sources make: {reason}"));
            None
        }
    };

    section("packages of npm");
    if let Err(reason) = needs::javascript_packages() {
        skipped.push(format!(
            "tests of bundles, of packages in hooks, of the JavaScript SDK and of json-server: {reason}"
        ));
    }

    section("programs that tests run");
    if let Err(reason) = needs::programs() {
        skipped.push(format!("some tests of metrics and of the capabilities http and process: {reason}"));
    }

    if let Err(reason) = needs::browser() {
        skipped.push(format!("tests in a browser: {reason}"));
    }
    let mut openapi_tools = None;
    match needs::openapi_tools() {
        Ok(folder) => openapi_tools = Some(folder),
        Err(reason) => skipped.push(format!("whether others can read the OpenAPI document: {reason}")),
    }

    section("servers that stores are on");
    let mut nats = None;
    match needs::servers() {
        Ok(folder) => nats = Some(folder),
        Err(reason) => {
            skipped.push(format!("tests of the drivers postgres, redis and nats, and of clusters: {reason}"));
            without.extend(ON_SERVERS);
            packages.extend(ON_SERVERS_PACKAGES.iter().flat_map(|package| ["--exclude", package]));
        }
    }

    section("v8: the library of the engine");
    match crate::v8::fetch() {
        Ok(folder) => println!("V8 is in {}", folder.display()),
        Err(reason) => {
            skipped.push(format!("tests of the engine v8: {reason}"));
            without.push("hooks::engines::v8::tests");
        }
    }

    section("data");
    let root = root();
    if root.join(FILMS).is_file() {
        println!("the demo is tested with all films of {FILMS}");
    } else {
        println!("no {FILMS}: the demo is tested with the sample in docs/demo");
    }

    if !skipped.is_empty() {
        section("skipped");
        skipped.iter().for_each(|what| println!("{what}"));
        if is_ci() {
            return Err("with CI=true nothing may be skipped".into());
        }
    }

    section("tidy");
    let tidied = tidy::run(&[]);
    if let Err(message) = &tidied {
        eprintln!("error: {message}");
    }

    let mut environment: Vec<(&str, PathBuf)> = vec![("SNAPHOOK_PLUGINS", plugins)];
    if is_long {
        environment.push(("SNAPHOOK_TEST_LONG", "1".into()));
    }
    environment.extend(zia.map(|folder| ("SNAPHOOK_ZIA", folder)));
    environment.extend(nats.map(|folder| ("SNAPHOOK_NATS", folder)));
    environment.extend(openapi_tools.map(|folder| ("SNAPHOOK_OPENAPI_TOOLS", folder)));
    if let Some(guests) = guests {
        environment.push(("SNAPHOOK_GUESTS", guests));
        environment.push(("SNAPHOOK_TOOLS", guests::tools()?));
    }
    if let Some(code) = runner_code {
        environment.push((crate::runner::CODE, code));
    }
    if let Some(wasm) = wasm_environment {
        environment.push(("SNAPHOOK_WASM_ENVIRONMENT", wasm.into()));
    }
    let run_tests = |what: &[&str], names: &[&str], skip: &[&str], stores: Option<&str>| {
        let mut command = cargo();
        command.arg("test").args(what).arg("--no-fail-fast").args(args).current_dir(root.clone());
        command.args(if args.iter().any(|arg| arg == "--") { &[][..] } else { &["--"] }).args(names);
        command.args(skip.iter().flat_map(|name| ["--skip", name])).envs(environment.iter().cloned());
        command.envs(stores.map(|stores| ("SNAPHOOK_TEST_STORES", stores)));
        run_command(&mut command)
    };
    if args.is_empty() {
        section("compile the tests");
        run_command(cargo().args(["test", "--workspace", "--no-run"]).current_dir(&root))?;
    }
    section("tests");
    // Who names tests means those.
    if args.is_empty() {
        without.extend(COMPILING);
    }
    let tested = run_tests(&packages, &[], &without, None);
    section("tests that start compilers");
    // The whole workspace again: for one package alone cargo would choose other features, and build dependencies once more.
    let tested_alone =
        if args.is_empty() { run_tests(&["--workspace", "--test", "it"], &COMPILING, &[], None) } else { Ok(()) };
    let mut tested_elsewhere = Ok(());
    if args.is_empty() {
        section("hostile input on other stores");
        let names = if is_long { &HOSTILE[..] } else { &HOSTILE[..HOSTILE_IN_SHORT] };
        for stores in OTHER_STORES {
            println!("on {stores}");
            let tested = run_tests(&["--workspace", "--test", "it"], names, &[], Some(stores));
            tested_elsewhere = tested_elsewhere.and(tested);
        }
    }

    if !skipped.is_empty() {
        section("not run");
        skipped.iter().for_each(|what| println!("{what}"));
    }
    tested.and(tested_alone).and(tested_elsewhere).and(tidied)
}

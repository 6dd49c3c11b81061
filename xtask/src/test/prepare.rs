//! Requirements of the tests besides their programs. They are found, built or installed.

use std::path::PathBuf;

use crate::repository::root;
use crate::shell::{Result, section};
use crate::{guests, native, needs};

/// Tests that start servers of other projects: parts of their names, and whole packages.
const ON_SERVERS: [&str; 5] = ["cluster::", "the_page_has_what_the_drivers_say", "postgres", "nats", "redis"];
const ON_SERVERS_PACKAGES: [&str; 3] = ["snaphook-postgres", "snaphook-redis", "snaphook-nats"];

/// The path of the shared test data, relative to the checkout.
const FILMS: &str = "../shared/data/movies.json";

/// The environment of the tests, and the tests that cannot run here.
#[derive(Debug, Default)]
pub(super) struct TestSetup {
    pub(super) environment: Vec<(&'static str, PathBuf)>,
    /// What is not tested and why, as text.
    pub(super) missing: Vec<String>,
    /// Tests that are skipped for that reason: parts of their names, and whole packages.
    pub(super) without: Vec<&'static str>,
    pub(super) without_packages: Vec<&'static str>,
}

impl TestSetup {
    /// Arguments of a test program.
    pub(super) fn skipped_tests(&self) -> impl Iterator<Item = &'static str> {
        self.without.iter().flat_map(|name| ["--skip", name])
    }

    /// Arguments of `cargo test`.
    pub(super) fn excluded_packages(&self) -> impl Iterator<Item = &'static str> {
        self.without_packages.iter().flat_map(|package| ["--exclude", package])
    }
}

/// Missing requirements are part of the result; an error means that something of this repository cannot be built.
pub(super) fn prepare() -> Result<TestSetup> {
    let mut prepared = TestSetup::default();

    section("guests: WebAssembly hooks for the tests");
    match needs::wasm_toolchain() {
        Ok(toolchain) => {
            let folder = guests::build(&toolchain)?;
            prepared.missing.extend(guests::build_others(&folder)?);
            prepared.environment.push(("SNAPHOOK_WASM_ENVIRONMENT", toolchain.environment().into()));
            prepared.environment.push(("SNAPHOOK_GUESTS", folder));
            prepared.environment.push(("SNAPHOOK_TOOLS", guests::tools()?));
        }
        Err(reason) => prepared.missing.push(format!("tests of WebAssembly components: {reason}")),
    }

    section("native: hooks as libraries for the tests");
    native::build()?;

    section("zia: the bridge and modules for the tests");
    match needs::cpp(None) {
        Ok(()) => prepared.environment.push(("SNAPHOOK_ZIA", crate::zia::for_tests()?)),
        Err(reason) => prepared.missing.push(format!("tests of modules of ZiaModuleAPISpec: {reason}")),
    }

    section("runner: the module of JavaScript hooks, rebuilt for comparison");
    match crate::runner::build() {
        Ok(code) => prepared.environment.push((crate::runner::CODE, code)),
        Err(reason) => {
            prepared.missing.push(format!("whether the JavaScript runner matches its sources: {reason}"));
        }
    }

    section("npm packages");
    if let Err(reason) = needs::javascript_packages() {
        prepared.missing.push(format!(
            "tests of bundles, of packages in hooks, of the JavaScript SDK and of json-server: {reason}"
        ));
    }

    section("programs that tests run");
    if let Err(reason) = needs::programs() {
        prepared.missing.push(format!("some tests of metrics and of the capabilities http and process: {reason}"));
    }
    if let Err(reason) = needs::proxy() {
        prepared.missing.push(format!("tests behind a reverse proxy: {reason}"));
    }
    if let Err(reason) = needs::browser() {
        prepared.missing.push(format!("tests in a browser: {reason}"));
    }
    match needs::openapi_tools() {
        Ok(folder) => prepared.environment.push(("SNAPHOOK_OPENAPI_TOOLS", folder)),
        Err(reason) => prepared.missing.push(format!("whether other tools can read the OpenAPI document: {reason}")),
    }

    section("servers for stores");
    match needs::servers() {
        Ok(folder) => prepared.environment.push(("SNAPHOOK_NATS", folder)),
        Err(reason) => {
            prepared.missing.push(format!("tests of the drivers postgres, redis and nats, and of clusters: {reason}"));
            prepared.without.extend(ON_SERVERS);
            prepared.without_packages.extend(ON_SERVERS_PACKAGES);
        }
    }

    section("v8: the library of the engine");
    match crate::v8::fetch() {
        Ok(folder) => println!("V8 is in {}", folder.display()),
        Err(reason) => {
            prepared.missing.push(format!("tests of the engine v8: {reason}"));
            prepared.without.push("hooks::engines::v8::tests");
        }
    }

    section("data");
    if root().join(FILMS).is_file() {
        println!("the demo is tested with all films of {FILMS}");
    } else {
        println!("no {FILMS}: the demo is tested with the sample in docs/demo");
    }
    Ok(prepared)
}

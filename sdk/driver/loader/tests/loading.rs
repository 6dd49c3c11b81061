//! Files that are not plugins for this server: each fails with one clear error, and the process continues.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use snaphook_driver::Store;
use snaphook_driver::wire::PluginDescription;
use snaphook_driver_loader::{Deadlines, Fault, LoadError, Plugin, inspect, inspect_in_child};
use support::{driver_file, hostile};

/// Enough time for a process that loads a library, even on a busy machine.
const LONG: Duration = Duration::from_secs(20);

async fn in_child(file: &Path, deadline: Duration) -> Result<PluginDescription, LoadError> {
    inspect_in_child(Path::new(env!("CARGO_BIN_EXE_inspect-plugin")), &[], file, deadline).await
}

/// The fault of a library, which must be the same whether it is loaded here or in a child process.
#[track_caller]
fn fault(file: &Path) -> String {
    let here = inspect(file).unwrap_err();
    assert_eq!(here.file(), file);
    assert_eq!(Plugin::load(file, Deadlines::default()).unwrap_err().to_string(), here.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let there = runtime.block_on(in_child(file, LONG)).unwrap_err();
    assert_eq!(there.to_string(), here.to_string());
    here.fault().to_string()
}

fn load(name: &str, flags: &[&str]) -> PathBuf {
    hostile(name, "load.c", flags)
}

#[test]
fn files_that_are_no_libraries() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    std::fs::write(&text, "this is no library\n".repeat(100)).unwrap();
    assert!(fault(&text).starts_with("it cannot be loaded as a library: "), "{}", fault(&text));
    let empty = folder.path().join("empty.so");
    std::fs::write(&empty, "").unwrap();
    assert!(fault(&empty).contains("too short"), "{}", fault(&empty));
    let none = folder.path().join("none.so");
    assert!(fault(&none).contains("No such file"), "{}", fault(&none));
    // Loading a truncated library may also crash the process.
    let whole = std::fs::read(load("whole", &[])).unwrap();
    let cut = folder.path().join("cut.so");
    std::fs::write(&cut, &whole[..whole.len() / 3]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(in_child(&cut, LONG)).unwrap_err();
}

#[test]
fn libraries_that_are_no_plugins() {
    let found = fault(&load("no-symbol", &["-Dsnaphook_plugin_v1=another"]));
    assert_eq!(found, "it does not export `snaphook_plugin_v1`, so it has no drivers");
    let found = fault(&load("null-descriptor", &["-DENTRY=return NULL"]));
    assert_eq!(found, "`snaphook_plugin_v1` returned no descriptor");
    let thrown = "-DENTRY=static struct _Unwind_Exception e; _Unwind_RaiseException(&e)";
    assert_eq!(fault(&load("entry-throws", &[thrown])), "snaphook_plugin_v1 panicked or threw an exception");
}

#[test]
fn other_versions_and_sizes() {
    let other = load("other-version", &["-DENTRY=plugin.abi_version = 7"]);
    assert_eq!(fault(&other), "it has version 7 of the interface, expected 1");
    assert_eq!(*inspect(&other).unwrap_err().fault(), Fault::Version { found: 7, expected: 1 });
    assert_eq!(inspect(&other).unwrap_err().to_string(), format!("plugin `{}`: {}", other.display(), fault(&other)));
    let small = load("small", &["-DENTRY=plugin.struct_size = 16"]);
    assert!(fault(&small).starts_with("its descriptor has 16 bytes, expected at least "), "{}", fault(&small));
    // The descriptor of a library for a later version is longer.
    inspect(&load("large", &["-DENTRY=plugin.struct_size = 4096"])).unwrap();
}

#[test]
fn descriptors_with_wrong_fields() {
    for (name, entry, expected) in [
        ("no-call", "plugin.call = NULL", "`call` of its descriptor is null"),
        ("no-open", "plugin.open = NULL", "`open` of its descriptor is null"),
        ("data-call", "plugin.call = (void *)data", "`call` of its descriptor is data, expected a function"),
        ("data-cancel", "plugin.cancel = (void *)data", "`cancel` of its descriptor is data, expected a function"),
        ("empty-name", "plugin.name.len = 0", "`name` of its descriptor is empty"),
        ("null-name", "plugin.name.ptr = NULL", "`name` of its descriptor is null, with 1 bytes"),
        (
            "long-name",
            "plugin.name.ptr = data; plugin.name.len = 300",
            "`name` of its descriptor has 300 bytes, at most 200 are allowed",
        ),
        (
            "endless-version",
            "plugin.version.len = SIZE_MAX",
            "`version` of its descriptor has 18446744073709551615 bytes",
        ),
        ("no-utf8", "plugin.version.ptr = \"\\xff\"", "`version` of its descriptor is not UTF-8"),
        ("no-description", "plugin.description.len = 0", "`description` of its descriptor is empty"),
        (
            "garbage-description",
            "plugin.description.len -= 2",
            "the description of its drivers cannot be read: it is not a valid message",
        ),
        ("other-name", "plugin.name.ptr = \"x\"", "its name is `h`, but that of the descriptor is `x`"),
        (
            "no-drivers",
            "plugin.description.ptr = no_drivers; plugin.description.len = sizeof(no_drivers) - 1",
            "cannot be read: it has no drivers",
        ),
        (
            "same-names",
            "plugin.description.ptr = same_names; plugin.description.len = sizeof(same_names) - 1",
            "two of its drivers are named `h`",
        ),
        (
            "odd-store",
            "plugin.description.ptr = odd_store; plugin.description.len = sizeof(odd_store) - 1",
            "the kind of store is unknown",
        ),
    ] {
        let found = fault(&load(name, &[&format!("-DENTRY={entry}")]));
        assert!(found.contains(expected), "{name}: {found}");
    }
}

#[tokio::test]
async fn initialisers_that_end_the_process() {
    for (name, constructor, expected) in [
        ("constructor-exits", "_exit(7)", "loading it ended the process with exit status: 7"),
        ("constructor-crashes", "*(volatile int *)16 = 1", "loading it ended the process with signal: 11 (SIGSEGV)"),
        ("constructor-aborts", "abort()", "loading it ended the process with signal: 6 (SIGABRT)"),
        ("constructor-writes", "(void)!write(2, \"no licence\\n\", 11); _exit(1)", "after `no licence`"),
    ] {
        let file = load(name, &[&format!("-DCONSTRUCTOR={constructor}")]);
        let error = in_child(&file, LONG).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn initialisers_that_do_not_return() {
    let file = load("constructor-hangs", &["-DCONSTRUCTOR=for (;;) pause()"]);
    let started = Instant::now();
    let error = in_child(&file, Duration::from_millis(300)).await.unwrap_err();
    assert!(started.elapsed() < LONG);
    assert_eq!(*error.fault(), Fault::Stuck(Duration::from_millis(300)));
    assert!(error.to_string().contains("was not loaded within 300ms"), "{error}");
}

/// Printed text is not mistaken for the answer, and behaviour at exit does not matter.
#[tokio::test]
async fn initialisers_that_print() {
    let print = "(void)!write(1, \"+\\1\\0\\0\\0x hello\", 12); atexit((void (*)(void))pause)";
    let file = load("constructor-prints", &[&format!("-DCONSTRUCTOR={print}")]);
    assert_eq!(in_child(&file, LONG).await.unwrap().name, "h");
}

#[tokio::test]
async fn a_program_that_does_not_start() {
    let error = inspect_in_child(Path::new("/no/such/program"), &[], Path::new("x.so"), LONG).await.unwrap_err();
    assert!(error.to_string().starts_with("plugin `x.so`: it could not be inspected: "), "{error}");
}

#[tokio::test]
async fn drivers_describe_themselves() {
    let file = driver_file("memory");
    let description = in_child(&file, LONG).await.unwrap();
    assert_eq!((description.name.as_str(), description.version.as_str()), ("memory", env!("CARGO_PKG_VERSION")));
    let [driver] = &description.drivers[..] else { panic!("one driver, found {description:?}") };
    assert_eq!((driver.name.as_str(), &driver.stores[..]), ("memory", &Store::ALL[..]));
    assert_eq!(*Plugin::load(&file, Deadlines::default()).unwrap().description(), description);
}

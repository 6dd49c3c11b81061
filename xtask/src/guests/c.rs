//! Guests in C: clang compiles the source with bindings of the WIT package that are generated here.
//!
//! The bindings of the template are in the repository as text, so that authors of hooks in C need only clang. [`check`]
//! ensures that they match the package.

use std::path::{Path, PathBuf};
use std::process::Command;

use wit_bindgen_core::{Files, wit_parser};
use wit_component::StringEncoding;
use wit_parser::Resolve;

use super::{is_stale, package};
use crate::needs::Clang;
use crate::repository::root;
use crate::shell::{Result, run};

/// The world of the bindings: both phases, so that one file serves all.
const WORLD: &str = "tests/guests/wit/suite.wit";

/// The folder of the bindings.
const BINDINGS: &str = "sdk/templates/c/bindings";

/// Source, and the name of the result.
const GUESTS: [(&str, &str); 2] = [("tests/guests/c/suite.c", "suite_c"), ("hooks/examples/c/check.c", "check_c")];

/// A program for WASI preview 1, and the name of the result.
const COMMANDS: [(&str, &str); 1] = [("tests/guests/c/command.c", "command_c")];

pub(super) fn build(folder: &Path, clang: &Clang) -> Result {
    check()?;
    let bindings = root().join(BINDINGS);
    let hook = bindings.join("hook.c");
    for (source, name) in GUESTS {
        // A library that may be kept between calls.
        let args = ["-mexec-model=reactor", "-I"].map(PathBuf::from);
        let args = args.into_iter().chain([bindings.clone(), hook.clone()]);
        compile(folder, clang, source, name, args.collect())?;
    }
    for (source, name) in COMMANDS {
        compile(folder, clang, source, name, Vec::new())?;
    }
    Ok(())
}

fn compile(folder: &Path, clang: &Clang, source: &str, name: &str, args: Vec<PathBuf>) -> Result {
    let (source, output) = (root().join(source), folder.join(format!("{name}.wasm")));
    if is_stale(&output, &[source.clone(), root().join(BINDINGS).join("hook.c")]) {
        let mut command = Command::new(&clang.clang);
        command.args(["--target=wasm32-wasi", "-Os", "-Wall", "-Wextra", "-Werror=implicit"]).args(args).arg(&source);
        run(command.arg("-o").arg(&output))?;
        println!("{name}: built");
    }
    Ok(())
}

/// Checks that the bindings match the package. With `SNAPHOOK_BLESS=1` they are rewritten.
pub(super) fn check() -> Result {
    for (name, text) in bindings()? {
        let path = root().join(BINDINGS).join(&name);
        if std::env::var_os("SNAPHOOK_BLESS").is_some() {
            std::fs::write(&path, &text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != text {
            return Err(format!(
                "{BINDINGS}/{name} does not match the WIT package; `SNAPHOOK_BLESS=1 cargo xtask guests` rewrites it"
            ));
        }
    }
    Ok(())
}

/// The names and texts of the files.
fn bindings() -> Result<Vec<(String, String)>> {
    let mut resolve = Resolve::default();
    let whole = |error| format!("{error:#}");
    resolve.push_path(package()).map_err(whole)?;
    let (suite, _) = resolve.push_path(root().join(WORLD)).map_err(whole)?;
    let world = resolve.select_world(&[suite], None).map_err(whole)?;
    let mut files = Files::default();
    // The world is also embedded as text, instead of as an object file.
    let options = wit_bindgen_c::Opts {
        no_object_file: true,
        rename_world: Some("hook".into()),
        ..wit_bindgen_c::Opts::default()
    };
    options.build().generate(&mut resolve, world, &mut files).map_err(whole)?;
    let metadata = wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None).map_err(whole)?;
    let mut texts = Vec::new();
    for (name, bytes) in files.iter() {
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        if name.ends_with(".c") {
            text = closed(&text)?;
            text.push_str(&section("component-type:hook", &metadata));
            // The symbol that the object file would define.
            text.push_str("\nvoid __component_type_object_force_link_hook(void) {}\n");
        }
        texts.push((name.to_owned(), text));
    }
    Ok(texts)
}

/// Makes the bindings fail closed: generated code treats any number that is not a tag as the first tag, ACCEPT,
/// including a verdict that the author forgot to set.
fn closed(text: &str) -> Result<String> {
    const CHECK: &str = "\
    // A tag that is none must not pass for ACCEPT.
    if ((*payload).tag > SNAPHOOK_HOOK_TYPES_VERDICT_AMEND) {
      hook_string_t words;
      hook_string_set(&words, \"the hook left a verdict whose tag is neither ACCEPT nor AMEND\");
      snaphook_hook_log_write(SNAPHOOK_HOOK_LOG_LEVEL_ERROR, &words);
      __builtin_trap();
    }
";
    const UNSET: &str = "  hook_verdict_t ok;\n";
    const SWITCH: &str = "    switch ((int32_t) (*payload).tag) {\n";
    if text.matches(UNSET).count() != 1 || text.matches(SWITCH).count() != 1 {
        return Err("the generator of the C bindings has changed; adapt `closed` in xtask/src/guests/c.rs".to_owned());
    }
    let unset = "  hook_verdict_t ok = { .tag = 0xff };\n";
    Ok(text.replace(UNSET, unset).replace(SWITCH, &format!("{CHECK}{SWITCH}")))
}

/// A custom section as assembler text, which clang accepts between functions.
fn section(name: &str, bytes: &[u8]) -> String {
    let mut text = format!(
        "\n// What the functions above are: from this a server makes a component of the module.\n__asm__(\n    \
         \".section \\\".custom_section.{name}\\\",\\\"\\\",@\\n\"\n"
    );
    for line in bytes.chunks(24) {
        let escapes: String = line.iter().map(|byte| format!("\\\\{byte:03o}")).collect();
        text.push_str(&format!("    \".ascii \\\"{escapes}\\\"\\n\"\n"));
    }
    text.push_str("    \".text\\n\"\n);\n");
    text
}

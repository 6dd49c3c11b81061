//! Builds the small C file (src/guard.c) that catches exceptions of libraries.

fn main() {
    const GUARD: &str = "src/guard.c";
    println!("cargo::rerun-if-changed={GUARD}");
    // On other systems exceptions work differently, so libraries must catch their own.
    if std::env::var_os("CARGO_CFG_UNIX").is_some() {
        cc::Build::new().file(GUARD).flag("-fexceptions").opt_level(2).warnings(true).compile("snaphook_guard");
    }
}

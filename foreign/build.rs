//! Builds the few lines of C that stop what libraries throw (src/guard.c).

fn main() {
    const GUARD: &str = "src/guard.c";
    println!("cargo::rerun-if-changed={GUARD}");
    // Elsewhere exceptions work in another way, and libraries must keep theirs to themselves.
    if std::env::var_os("CARGO_CFG_UNIX").is_some() {
        cc::Build::new().file(GUARD).flag("-fexceptions").opt_level(2).warnings(true).compile("snaphook_guard");
    }
}

//! How the module is linked.

/// The stack that C and Rust keep in memory. QuickJS's own limit lies below it (src/runner.rs), with room for what does not
/// look at the limit.
const STACK_BYTES: u32 = 512 << 10;

/// As much as most calls need: growing costs more than having.
const INITIAL_MEMORY_BYTES: u32 = 2 << 20;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=STACK_BYTES={STACK_BYTES}");
    // What overflows the stack leaves the memory, and traps.
    println!("cargo::rustc-link-arg=--stack-first");
    println!("cargo::rustc-link-arg=-zstack-size={STACK_BYTES}");
    println!("cargo::rustc-link-arg=--initial-memory={INITIAL_MEMORY_BYTES}");
}

//! The runner's module in the repository: a WebAssembly snapshot of QuickJS with the scripts loaded.
//!
//! `cargo xtask runner` builds it from the sources: the crate in runner/, with QuickJS from the crate rquickjs
//! (xtask/src/runner.rs), then the scripts (the tests below). runner/runner.sha256 has its SHA-256 and that of the
//! sources.

/// Compressed with zstd.
const COMPRESSED: &[u8] = include_bytes!("runner/runner.wasm.zst");

/// A line for each: SHA-256, two blanks, name.
const DIGESTS: &str = include_str!("runner/runner.sha256");

/// The module, and its SHA-256 in hexadecimal digits.
pub(super) fn runner() -> Result<(Vec<u8>, &'static str), String> {
    let module = zstd::decode_all(COMPRESSED).map_err(|error| format!("the JavaScript runner is damaged: {error}"))?;
    let digest = digest().ok_or("the JavaScript runner has no digest")?;
    Ok((module, digest))
}

/// Its SHA-256.
pub(super) fn digest() -> Option<&'static str> {
    digest_of("runner.wasm")
}

fn digest_of(name: &str) -> Option<&'static str> {
    DIGESTS.lines().find_map(|line| line.strip_suffix(name)?.strip_suffix("  "))
}

#[cfg(test)]
#[path = "artifact_tests.rs"]
mod tests;

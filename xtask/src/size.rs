//! `cargo xtask size`: checks that the published binary is small and has no symbols.

use std::path::PathBuf;

use crate::repository::{root, target_directory};
use crate::shell::{Result, cargo, run as run_command, section};

/// Maximum size of a release binary (1 MB is 1,000,000 bytes).
const BYTES_MAX: usize = 60_000_000;

/// `cargo xtask size [BINARY]`.
pub(crate) fn run(args: &[String]) -> Result {
    let binary = match args {
        [] => {
            section("build");
            run_command(cargo().args(["build", "--release", "--bin", "snaphook"]).current_dir(root()))?;
            target_directory()?.join("release/snaphook")
        }
        [binary] => PathBuf::from(binary),
        _ => return Err(format!("`size` takes a binary or nothing, found `{}`", args.join(" "))),
    };
    let bytes = std::fs::read(&binary).map_err(|error| format!("cannot read {}: {error}", binary.display()))?;
    let said = check(&bytes).map_err(|fault| format!("{}: {fault}", binary.display()))?;
    println!("{}: {said}", binary.display());
    Ok(())
}

/// Checks the binary; returns its size.
fn check(binary: &[u8]) -> Result<String> {
    let megabytes = |bytes: usize| format!("{:.1} MB", bytes as f64 / 1e6);
    if has_symbols(binary) {
        return Err("it has symbols; set `strip = \"symbols\"` in the release profile in Cargo.toml".into());
    }
    match binary.len() {
        bytes if bytes > BYTES_MAX => Err(format!("{}, at most {}", megabytes(bytes), megabytes(BYTES_MAX))),
        bytes => Ok(format!("{}, of at most {}", megabytes(bytes), megabytes(BYTES_MAX))),
    }
}

/// Whether an ELF file has sections with symbols, or its section names cannot be read. `false` for other files.
fn has_symbols(binary: &[u8]) -> bool {
    let names: [&[u8]; 2] = [b"\0.symtab\0", b"\0.debug_info\0"];
    binary.starts_with(b"\x7fELF")
        && section_names(binary)
            .is_none_or(|table| names.iter().any(|name| table.windows(name.len()).any(|window| window == *name)))
}

/// The section names of a 64-bit little-endian ELF file. `None`: the file is damaged.
fn section_names(binary: &[u8]) -> Option<&[u8]> {
    let number = |at: usize, bytes: usize| {
        let found = binary.get(at..at.checked_add(bytes)?)?;
        Some(found.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    // e_shoff, e_shentsize, e_shstrndx, then sh_offset and sh_size of that section.
    let (table, size, index) = (number(0x28, 8)?, number(0x3a, 2)?, number(0x3e, 2)?);
    let header = usize::try_from(table.checked_add(size.checked_mul(index)?)?).ok()?;
    let offset = usize::try_from(number(header.checked_add(0x18)?, 8)?).ok()?;
    let length = usize::try_from(number(header.checked_add(0x20)?, 8)?).ok()?;
    binary.get(offset..offset.checked_add(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_or_has_symbols_is_refused() {
        // The test program itself has symbols.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        if cfg!(target_os = "linux") {
            assert!(check(&own).unwrap_err().contains("it has symbols"));
        }
        let mut small = vec![0; 1000];
        assert_eq!(check(&small).unwrap(), "0.0 MB, of at most 60.0 MB");
        small.resize(BYTES_MAX + 1, 0);
        assert_eq!(check(&small).unwrap_err(), "60.0 MB, at most 60.0 MB");
        // An ELF header with invalid offsets is rejected.
        assert!(check(b"\x7fELF").is_err());
        assert!(check(&[&b"\x7fELF"[..], &[0xff; 100]].concat()).is_err());
    }

    #[test]
    fn the_profile_strips() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        let (_, release) = manifest.split_once("[profile.release]\n").unwrap();
        assert!(release.split("\n[").next().unwrap().contains("strip = \"symbols\""));
    }
}

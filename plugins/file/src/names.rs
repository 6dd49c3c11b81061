//! File names derived from the names of secrets, instances and errors.
//!
//! A file's name is `<capitals>=<name in lower case>`, where `<capitals>` says in hexadecimal which letters are upper
//! case: bit 0 is the first character. So names that differ only in case are different files on case-insensitive file
//! systems, `con` is not a device (`0=con`), and a file name stays far below the 255 bytes that file systems allow: at
//! most 32 digits, `=` and 128 characters. The names that the server allows cannot contain `=`; the file names of all
//! other names are digests.

use sha2::{Digest as _, Sha256};

/// The file's name without its suffix.
pub(crate) fn stem(name: &str) -> String {
    let capitals = name
        .bytes()
        .enumerate()
        .filter(|(_, byte)| byte.is_ascii_uppercase())
        .fold(0_u128, |capitals, (at, _)| capitals | 1_u128.checked_shl(at as u32).unwrap_or(0));
    format!("{capitals:x}={}", name.to_ascii_lowercase())
}

/// The same for any id: for an id with characters other than `A-Za-z0-9._~-`, or a longer one, the name is a digest.
pub(crate) fn stem_of_any(id: &str) -> String {
    let is_plain =
        (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte));
    if is_plain { stem(id) } else { format!("x={:x}", Sha256::digest(id)) }
}

/// The secret whose file has this name; `None` if the file is not a secret.
pub(crate) fn from_stem(file: &str) -> Option<String> {
    let (capitals, small) = file.split_once('=')?;
    let capitals = u128::from_str_radix(capitals, 16).ok()?;
    let name: String = small
        .chars()
        .enumerate()
        .map(|(at, char)| if capitals >> (at as u32 & 127) & 1 == 1 { char.to_ascii_uppercase() } else { char })
        .collect();
    (stem(&name) == file).then_some(name)
}

/// The same for files written by versions up to 0.1, which put `=` after each upper-case letter.
pub(crate) fn from_old_stem(file: &str) -> Option<String> {
    let bytes = file.as_bytes();
    let follows_capital = |at: usize| at > 0 && bytes[at - 1].is_ascii_uppercase();
    let fits = (0..bytes.len()).all(|at| (bytes[at] == b'=') == follows_capital(at)) && !follows_capital(bytes.len());
    let name = file.replace('=', "");
    let is_name = name.starts_with(|char: char| char.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    (fits && is_name).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        for (name, file) in [("con", "0=con"), ("a.B-c", "4=a.b-c"), ("ABC", "7=abc"), ("0", "0=0")] {
            assert_eq!(stem(name), file);
            assert_eq!(from_stem(file).as_deref(), Some(name));
            assert_eq!(from_old_stem(file), None, "{file}");
        }
        let long = "A".repeat(128);
        assert_eq!(stem(&long).len(), 161);
        assert_eq!(from_stem(&stem(&long)), Some(long));
        for file in ["con", "=con", "00=con", "0=Con", "8=con", "g=con", "A=con", "+1=con"] {
            assert_eq!(from_stem(file), None, "{file}");
        }
    }

    #[test]
    fn any_id_has_a_name() {
        assert_eq!(stem_of_any("a~B"), "4=a~b");
        for id in ["", "é", "a/b", "..\\", "a b", &"a".repeat(129)] {
            let stem = stem_of_any(id);
            assert!(stem.starts_with("x=") && stem.len() == 66, "{stem}");
        }
    }

    #[test]
    fn files_of_before() {
        for (file, name) in [("mail", "mail"), ("M=ail", "Mail"), ("aB=C=", "aBC"), ("0.x_-", "0.x_-")] {
            assert_eq!(from_old_stem(file).as_deref(), Some(name), "{file}");
        }
        for file in ["", "=a", "a=b", "AB=", "A", "A==", ".a", "a b", "0=a"] {
            assert_eq!(from_old_stem(file), None, "{file}");
        }
    }
}

//! The setting `durability`.

use serde::Deserialize;

pub(crate) const DURABILITY_EXPECTED: &str = "`fsync`, `everysec` or `lazy`";

/// Which changes must survive a crash of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Durability {
    /// Every acknowledged change.
    #[default]
    Fsync,
    /// Changes older than a second or two.
    Everysec,
    /// Whatever the server keeps: nothing is checked.
    Lazy,
}

impl TryFrom<String> for Durability {
    type Error = String;

    fn try_from(text: String) -> Result<Durability, String> {
        match text.as_str() {
            "fsync" => Ok(Durability::Fsync),
            "everysec" => Ok(Durability::Everysec),
            "lazy" => Ok(Durability::Lazy),
            _ => Err(format!("`durability` is `{}`, expected {DURABILITY_EXPECTED}", text.escape_debug())),
        }
    }
}

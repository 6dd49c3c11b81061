//! The path of a value in an instance, for filters, sort orders and indexes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A path in an instance: in its data, or to a value besides the data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Path {
    /// Property names from the outermost to the innermost; never empty.
    Data(Vec<String>),
    Meta(Meta),
}

/// Values of an instance besides its data, which every instance has: `Id` is text, the others are whole numbers; times
/// are in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Meta {
    #[serde(rename = "$id")]
    Id,
    #[serde(rename = "$created_at")]
    CreatedAt,
    #[serde(rename = "$updated_at")]
    UpdatedAt,
    #[serde(rename = "$revision")]
    Revision,
    #[serde(rename = "$position")]
    Position,
}

impl Meta {
    pub const ALL: [Meta; 5] = [Meta::Id, Meta::CreatedAt, Meta::UpdatedAt, Meta::Revision, Meta::Position];

    /// The name for clients, such as `$created_at`.
    pub fn name(self) -> &'static str {
        match self {
            Meta::Id => "$id",
            Meta::CreatedAt => "$created_at",
            Meta::UpdatedAt => "$updated_at",
            Meta::Revision => "$revision",
            Meta::Position => "$position",
        }
    }

    pub fn from_name(name: &str) -> Option<Meta> {
        Meta::ALL.into_iter().find(|meta| meta.name() == name)
    }
}

impl Path {
    /// The names of a path into the data.
    pub fn names(&self) -> Option<&[String]> {
        match self {
            Path::Data(names) => Some(names),
            Path::Meta(_) => None,
        }
    }
}

impl From<Vec<String>> for Path {
    fn from(names: Vec<String>) -> Path {
        Path::Data(names)
    }
}

impl From<Meta> for Path {
    fn from(meta: Meta) -> Path {
        Path::Meta(meta)
    }
}

impl fmt::Display for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_told_apart_as_json() {
        for (path, text) in [
            (Path::Data(vec!["$id".into()]), r#"["$id"]"#),
            (Path::Data(vec!["a".into(), "b".into()]), r#"["a","b"]"#),
            (Path::Meta(Meta::Id), r#""$id""#),
            (Path::Meta(Meta::UpdatedAt), r#""$updated_at""#),
        ] {
            assert_eq!(serde_json::to_string(&path).unwrap(), text);
            assert_eq!(crate::json::typed::<Path>(text).unwrap(), path);
        }
        for meta in Meta::ALL {
            assert_eq!(Meta::from_name(meta.name()), Some(meta));
            assert_eq!(serde_json::to_string(&meta).unwrap(), format!("\"{meta}\""));
        }
    }
}

//! The table of a model.
//!
//! A model's table is `m<number>`, its indexes `i<number>_<place>`. So identifiers contain no model ids and no property
//! names. Numbers are never reused: a node with an outdated definition finds that a table no longer exists, never that
//! its name has another meaning.
//!
//! An instance is one row: its id as bytes, versions and times, `data` with the JSON as received, and `k<place>` with a
//! [key](super::key) for each indexed property, in the direction of the index. Every index ends with the id. The driver
//! reads `data` to evaluate filters and sort orders over other properties.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use snaphook_driver::compare::lookup;
use snaphook_driver::limits::LIST_LENGTH_MAX;
use snaphook_driver::{ModelShape, SortKey};

use super::key::stored_key;

/// Maximum number of key columns in one table. A row must fit into a page of 8 KiB, where each value may take up to
/// about 28 bytes even if it is stored elsewhere.
const COLUMNS_MAX: usize = 256;

/// The columns of every table, in the order of [`super::row`].
pub(super) const OWN: &str = "id, model_version, revision, position, created_at, updated_at, data";

/// Key columns, and the indexes over them. Stored in the registry, so that a version of this driver that would choose
/// others can still read the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Layout {
    pub(super) columns: Vec<SortKey>,
    /// The columns of each index, as positions in `columns`.
    pub(super) indexes: Vec<Vec<usize>>,
}

/// A model's table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Table {
    pub(super) model: String,
    pub(super) number: u64,
    pub(super) layout: Layout,
}

impl Layout {
    /// The layout for the indexes of a shape. An index that would need too many columns is left out; queries have the
    /// same result without it.
    pub(super) fn of(shape: &ModelShape) -> Layout {
        let mut layout = Layout::default();
        for keys in indexes(shape) {
            let mut columns = layout.columns.clone();
            let places = keys.iter().map(|key| match columns.iter().position(|column| column == key) {
                Some(place) => place,
                None => {
                    columns.push(key.clone());
                    columns.len() - 1
                }
            });
            let places: Vec<usize> = places.collect();
            if columns.len() <= COLUMNS_MAX {
                layout.columns = columns;
                layout.indexes.push(places);
            }
        }
        layout
    }

    /// The values of the key columns for an instance's data.
    pub(super) fn keys<'a>(&'a self, data: &'a Value) -> impl Iterator<Item = Vec<u8>> + 'a {
        self.columns
            .iter()
            .map(|column| stored_key(column.path.names().and_then(|names| lookup(data, names)), column.descending))
    }
}

impl Table {
    pub(super) fn name(&self) -> String {
        format!("m{}", self.number)
    }

    /// The names of the key columns, each after a comma.
    pub(super) fn key_columns(&self, prefix: &str) -> String {
        (0..self.layout.columns.len()).map(|place| format!(", {prefix}k{place}")).collect()
    }

    /// The statement that creates the table, without its indexes.
    pub(super) fn create(&self) -> String {
        let keys: String = (0..self.layout.columns.len()).map(|place| format!(", k{place} bytea NOT NULL")).collect();
        format!(
            "CREATE TABLE @.{}(id bytea PRIMARY KEY, model_version bigint NOT NULL, revision bigint NOT NULL, \
             position bigint NOT NULL, created_at bigint NOT NULL, updated_at bigint NOT NULL, data text NOT NULL{keys})",
            self.name()
        )
    }

    /// The statements that create the indexes.
    pub(super) fn create_indexes(&self) -> Vec<String> {
        let statement = |(number, places): (usize, &Vec<usize>)| {
            let columns: String = places.iter().map(|place| format!("k{place}, ")).collect();
            format!("CREATE INDEX i{}_{number} ON @.{}({columns}id)", self.number, self.name())
        };
        self.layout.indexes.iter().enumerate().map(statement).collect()
    }
}

/// The indexes of a shape. An index that another one begins with is left out.
fn indexes(shape: &ModelShape) -> Vec<Vec<SortKey>> {
    let unique = shape.unique.iter().map(|properties| {
        properties
            .iter()
            .map(|property| SortKey { path: vec![property.clone()].into(), descending: false })
            .collect::<Vec<_>>()
    });
    let mut indexes: Vec<Vec<SortKey>> = Vec::new();
    for mut index in shape.indexes.iter().cloned().chain(unique) {
        index.truncate(LIST_LENGTH_MAX);
        // Only the data has keys.
        index.retain(|key| key.path.names().is_some());
        if !index.is_empty() && !indexes.iter().any(|other| other.starts_with(&index)) {
            indexes.retain(|other| !index.starts_with(other));
            indexes.push(index);
        }
    }
    indexes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use snaphook_driver::Json;

    /// Parses a sort key such as `-a.b`.
    pub(crate) fn sort_key(text: &str) -> SortKey {
        let path: Vec<String> = text.trim_start_matches('-').split('.').map(str::to_owned).collect();
        SortKey { path: path.into(), descending: text.starts_with('-') }
    }

    pub(crate) fn shape(indexes: &[&[&str]]) -> ModelShape {
        ModelShape {
            model: "m".into(),
            version: 1,
            columns: Vec::new(),
            indexes: indexes.iter().map(|keys| keys.iter().map(|key| sort_key(key)).collect()).collect(),
            unique: Vec::new(),
            record: Json::trusted("{}"),
        }
    }

    #[test]
    fn columns_are_shared_and_bounded() {
        let layout = Layout::of(&shape(&[&["a", "-b"], &["a"], &["b"], &["-b", "a"]]));
        assert_eq!(layout.columns, ["a", "-b", "b"].map(sort_key));
        assert_eq!(layout.indexes, [vec![0, 1], vec![2], vec![1, 0]]);
        let names: Vec<String> = (0..500).map(|number| format!("p{number}")).collect();
        let lists: Vec<Vec<&str>> = names.chunks(10).map(|names| names.iter().map(String::as_str).collect()).collect();
        let lists: Vec<&[&str]> = lists.iter().map(Vec::as_slice).collect();
        let layout = Layout::of(&shape(&lists));
        assert_eq!((layout.columns.len(), layout.indexes.len()), (256, 32));
        assert!(layout.indexes.iter().all(|places| places.len() == 8));
    }
}

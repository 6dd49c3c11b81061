//! A model as a table: its columns and its indexes, with names from [`super::names`].
//!
//! An instance is one row: its id, versions and times, and `_data`, the JSON as it was received. Properties have no
//! separate columns: filters, sorts and indexes read the JSON through the functions of [`crate::value`], so that a
//! property is compared in the same way wherever it is, and a change of the schema alone changes no table.
//!
//! For a sort key, a value is compared by two expressions, first its class and then its value. The class sorts absent
//! values last in either direction and separates types:
//!
//! - a property that the schema gives one type: whether the value is NULL, which is 0 or 1;
//! - anything else: 0 boolean, 1 number, 2 string, 3 array or object, 4 absent or null.

use std::collections::HashMap;

use snaphook_driver::{ColumnKind, ModelShape, Path, SortKey};

use super::meta;
use super::names::{Counter, Names};

/// Columns of an instance in the order that [`super::query::decode`] expects.
pub(super) const COLUMNS: &str = "_id, _model_version, _revision, _position, _created_at, _updated_at, _data";

/// The table's own columns. UNIQUE gives `_id` an index; rows are stored in order of creation.
const OWN_COLUMNS: &str = "_id TEXT NOT NULL UNIQUE, _model_version INTEGER NOT NULL, _revision INTEGER NOT NULL, \
     _position INTEGER NOT NULL, _created_at INTEGER NOT NULL, _updated_at INTEGER NOT NULL, _data TEXT NOT NULL";

/// A model's table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) model: String,
    /// The table's name.
    pub(super) name: String,
    /// The statement that reads one row by its id.
    pub(super) get: String,
    /// The statements that create, update and delete a row.
    pub(super) writes: [String; 3],
    names: Names,
    /// The types that the schema guarantees for scalar properties.
    kinds: HashMap<String, ColumnKind>,
}

/// How a path is compared in SQL.
pub(super) struct Operand {
    pub(super) class: String,
    pub(super) value: String,
    /// The same as `value`, for sorting in memory.
    pub(super) sorted: String,
    /// `None` if the class distinguishes types, otherwise the only type.
    pub(super) kind: Option<ColumnKind>,
    /// Whether an index contains class and value. Otherwise a condition uses as few of them as possible, because each
    /// requires reading the data.
    pub(super) indexed: bool,
    /// Whether it is a column of the table; `kind` then only means that there is one class.
    pub(super) is_meta: bool,
    /// The arguments of the functions that find the path.
    pub(super) arguments: String,
}

/// How an index provides an order; see [`Table::given`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Given {
    /// With how many of the fixed paths the index begins.
    pub(super) lead: usize,
    /// How many of the sort keys that are not fixed follow its order.
    pub(super) keys: usize,
    /// Whether these are all sort keys.
    pub(super) whole: bool,
    /// Whether rows that are equal in these are sorted by id.
    pub(super) by_id: bool,
    /// Whether it must be read backwards: then the values are in order, but the classes are not.
    pub(super) backwards: bool,
}

impl Operand {
    /// The class that means "absent or null".
    pub(super) fn class_absent(&self) -> i64 {
        if self.kind.is_some() { 1 } else { 4 }
    }
}

impl Table {
    /// The table of a shape that follows `old`: unchanged parts keep their names, the others get new ones.
    pub(super) fn follow(old: Option<&Table>, shape: &ModelShape, counter: &mut Counter) -> Table {
        let mut names = Names { table: old.map_or_else(|| counter.next(), |old| old.names.table), ..Names::default() };
        let table = Table::restore(shape, names.clone());
        for keys in indexes(shape) {
            let kept = old.and_then(|old| {
                let (_, number) = old.names.indexes.iter().find(|(other, _)| *other == keys)?;
                (old.terms(&keys) == table.terms(&keys)).then_some(*number)
            });
            names.indexes.push((keys, kept.unwrap_or_else(|| counter.next())));
        }
        Table { names, ..table }
    }

    /// The table of a shape that has these names already.
    pub(super) fn restore(shape: &ModelShape, names: Names) -> Table {
        let name = format!("m{}", names.table);
        Table {
            model: shape.model.clone(),
            get: format!("SELECT {COLUMNS} FROM {name} WHERE _id = ?1"),
            writes: [
                format!(
                    "INSERT INTO {name}(_id, _model_version, _revision, _position, _created_at, _updated_at, _data) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6) ON CONFLICT(_id) DO UPDATE SET \
                     _model_version = ?2, _revision = ?3, _position = ?4, _created_at = ?5, _updated_at = ?5, \
                     _data = ?6"
                ),
                format!(
                    "UPDATE {name} SET _model_version = ?2, _revision = ?3, _position = ?4, _updated_at = ?5, \
                     _data = ?6 WHERE _id = ?1"
                ),
                format!("DELETE FROM {name} WHERE _id = ?1"),
            ],
            name,
            names,
            kinds: shape.columns.iter().rev().map(|column| (column.name.clone(), column.kind)).collect(),
        }
    }

    /// The names that [`Table::restore`] needs besides the shape.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// How a path into the data is compared.
    pub(super) fn operand(&self, path: &Path) -> Operand {
        let names = match path {
            Path::Data(names) => names.as_slice(),
            Path::Meta(meta) => {
                let column = meta::column(*meta);
                return Operand {
                    class: format!("({column} IS NULL)"),
                    value: column.to_owned(),
                    sorted: column.to_owned(),
                    kind: Some(ColumnKind::Any),
                    indexed: false,
                    is_meta: true,
                    arguments: String::new(),
                };
            }
        };
        let kind = match names {
            [property] => self.kinds.get(property).copied().filter(|kind| *kind != ColumnKind::Any),
            _ => None,
        };
        let arguments = names.iter().fold(String::from("_data"), |text, name| text + ", " + &name_literal(name));
        let value = format!("_value({arguments})");
        Operand {
            class: if kind.is_some() { format!("({value} IS NULL)") } else { format!("_class({arguments})") },
            value,
            sorted: format!("_sorted({arguments})"),
            kind,
            indexed: self.names.indexes.iter().flat_map(|(keys, _)| keys).any(|key| key.path == *path),
            is_meta: false,
            arguments,
        }
    }

    /// How far an index provides this order among rows that are equal in the paths `fixed`; `None` if no index provides
    /// even the first key.
    pub(super) fn given(&self, fixed: &[&Path], sort: &[SortKey]) -> Option<Given> {
        let is_fixed = |key: &&SortKey| fixed.contains(&&key.path);
        let sort: Vec<&SortKey> = sort.iter().filter(|key| !is_fixed(key)).collect();
        // The index of the ids.
        let ids = (fixed.is_empty() && sort.is_empty()).then_some(Given {
            lead: 0,
            keys: 0,
            whole: true,
            by_id: true,
            backwards: false,
        });
        let indexes = self.names.indexes.iter().filter_map(|(index, _)| {
            let lead = index.iter().take_while(is_fixed).count();
            let rest: Vec<&SortKey> = index.iter().filter(|key| !is_fixed(key)).collect();
            let forwards = rest.iter().zip(&sort).take_while(|(given, wanted)| given == wanted).count();
            let backwards = match (sort.first(), rest.first()) {
                (Some(wanted), Some(key)) => wanted.path == key.path && wanted.descending != key.descending,
                _ => false,
            };
            let keys = if backwards { 1 } else { forwards };
            let whole = keys == sort.len() && (keys > 0 || rest.is_empty());
            let by_id = whole && !backwards && keys == rest.len();
            (whole || keys > 0).then_some(Given { lead, keys, whole, by_id, backwards })
        });
        ids.into_iter().chain(indexes).max_by_key(|given| (given.lead, given.keys, !given.backwards))
    }

    /// The statement that creates the table, without its indexes.
    pub(super) fn create(&self) -> String {
        format!("CREATE TABLE {}({OWN_COLUMNS})", self.name)
    }

    /// Indexes: the name, and the statement that creates it.
    pub(super) fn index_definitions(&self) -> Vec<(String, String)> {
        self.names
            .indexes
            .iter()
            .map(|(keys, number)| {
                let name = format!("i{number}");
                let sql = format!("CREATE INDEX {name} ON {}({}, _id)", self.name, self.terms(keys));
                (name, sql)
            })
            .collect()
    }

    /// The terms of an index besides the id.
    fn terms(&self, keys: &[SortKey]) -> String {
        let terms = keys.iter().flat_map(|key| {
            let operand = self.operand(&key.path);
            let direction = if key.descending { " DESC" } else { "" };
            [operand.class, format!("{}{direction}", operand.value)]
        });
        terms.collect::<Vec<_>>().join(", ")
    }
}

/// The indexes of a shape. An index also serves every prefix of its list.
fn indexes(shape: &ModelShape) -> Vec<Vec<SortKey>> {
    let unique = shape.unique.iter().map(|properties| {
        properties
            .iter()
            .map(|property| SortKey { path: vec![property.clone()].into(), descending: false })
            .collect::<Vec<_>>()
    });
    let mut indexes: Vec<Vec<SortKey>> = Vec::new();
    for index in shape.indexes.iter().cloned().chain(unique) {
        if !index.is_empty() && !indexes.iter().any(|other| other.starts_with(&index)) {
            indexes.retain(|other| !index.starts_with(other));
            indexes.push(index);
        }
    }
    indexes
}

/// A name as an SQL argument. A text literal ends at NUL, so such a name is passed as bytes.
fn name_literal(name: &str) -> String {
    if name.contains('\0') {
        let bytes: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        return format!("x'{bytes}'");
    }
    quote_text(name)
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

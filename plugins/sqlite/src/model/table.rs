//! What a model looks like as a table: its name, its columns, its indexes.
//!
//! An instance is one row: its own columns (their names start with `_`) and `_data`, the JSON as it came. Each
//! scalar property is a column that SQLite computes from `_data` when it is read (a virtual generated column), so
//! that a write costs nothing more and a migration rewrites nothing. Indexes are over these columns.
//!
//! Under one sort key a value is compared by two expressions, its class and then its value. The class puts absent
//! values last in either direction and keeps types apart:
//!
//! - a column that the schema gives one type: `"total" IS NULL`, which is 0 or 1;
//! - anything else: 0 boolean, 1 number, 2 string, 3 array or object, 4 absent or null.

use std::collections::{HashMap, HashSet};

use snaphook_driver::{ColumnKind, ModelShape, SortKey};

use super::query::COLUMNS;

/// Property columns of one table; SQLite allows 2,000 columns. Properties beyond these are read from `_data`.
const COLUMNS_MAX: usize = 1900;

/// The table's own columns. `_id` has an index of its own, by the way of UNIQUE; rows lie in the order in which
/// they were made.
const OWN_COLUMNS: &str = "_id TEXT NOT NULL UNIQUE, _model_version INTEGER NOT NULL, _revision INTEGER NOT NULL, \
     _position INTEGER NOT NULL, _created_at INTEGER NOT NULL, _updated_at INTEGER NOT NULL, _data TEXT NOT NULL";

/// Names that no property column may have: the table's own, and SQLite's for the row's number.
const TAKEN_NAMES: [&str; 10] = [
    "_id",
    "_model_version",
    "_revision",
    "_position",
    "_created_at",
    "_updated_at",
    "_data",
    "rowid",
    "oid",
    "_rowid_",
];

/// A model's table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) model: String,
    /// The table's name, quoted.
    pub(super) name: String,
    /// The statement that reads one row by its id.
    pub(super) get: String,
    /// The statements that create, update and delete a row.
    pub(super) writes: [String; 3],
    columns: Vec<Generated>,
    /// Property to place in `columns`.
    by_property: HashMap<String, usize>,
    indexes: Vec<Vec<SortKey>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Generated {
    /// Quoted.
    name: String,
    property: String,
    kind: ColumnKind,
}

/// How a path is compared in SQL.
pub(super) struct Operand {
    pub(super) class: String,
    pub(super) value: String,
    /// `None` if the class tells types apart, else the one type that there is.
    pub(super) kind: Option<ColumnKind>,
}

/// How an index gives an order; see [`Table::given`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Given {
    /// How many of the fixed paths the index begins with.
    pub(super) lead: usize,
    /// Whether it must be read from its end: then the values come in order, but the classes do not.
    pub(super) backwards: bool,
}

impl Operand {
    /// The class that stands for "absent or null".
    pub(super) fn class_absent(&self) -> i64 {
        if self.kind.is_some() { 1 } else { 4 }
    }
}

impl Table {
    pub(super) fn new(shape: &ModelShape) -> Self {
        let mut columns: Vec<Generated> = Vec::new();
        let mut by_property = HashMap::new();
        let mut seen: HashSet<String> = TAKEN_NAMES.iter().map(|name| (*name).to_owned()).collect();
        for column in shape.columns.iter().filter(|column| !column.name.contains('\0')).take(COLUMNS_MAX) {
            if by_property.contains_key(&column.name) {
                continue;
            }
            let name = free_name(&column.name, &seen);
            seen.insert(name.to_ascii_lowercase());
            by_property.insert(column.name.clone(), columns.len());
            columns.push(Generated { name: quote_name(&name), property: column.name.clone(), kind: column.kind });
        }
        let unique = shape.unique.iter().map(|properties| {
            properties
                .iter()
                .map(|property| SortKey { path: vec![property.clone()], descending: false })
                .collect::<Vec<_>>()
        });
        let mut indexes: Vec<Vec<SortKey>> = Vec::new();
        for index in shape.indexes.iter().cloned().chain(unique) {
            // An index serves every shorter list that it begins with.
            if !index.is_empty() && !indexes.iter().any(|other| other.starts_with(&index)) {
                indexes.retain(|other| !index.starts_with(other));
                indexes.push(index);
            }
        }
        let name = quote_name(&table_name(&shape.model));
        Table {
            model: shape.model.clone(),
            get: format!("SELECT {COLUMNS} FROM {name} WHERE _id = ?1"),
            writes: [
                format!(
                    "INSERT INTO {name}({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6) ON CONFLICT(_id) DO UPDATE SET \
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
            columns,
            by_property,
            indexes,
        }
    }

    /// How a path into the data is compared.
    pub(super) fn operand(&self, path: &[String]) -> Operand {
        let column = match path {
            [property] => self.by_property.get(property).map(|index| &self.columns[*index]),
            _ => None,
        };
        match column {
            Some(column) if column.kind != ColumnKind::Any => Operand {
                class: format!("({} IS NULL)", column.name),
                value: column.name.clone(),
                kind: Some(column.kind),
            },
            _ => {
                let path = quote_text(&json_path(path));
                Operand {
                    class: format!(
                        "(CASE json_type(_data, {path}) WHEN 'true' THEN 0 WHEN 'false' THEN 0 WHEN 'integer' THEN 1 \
                         WHEN 'real' THEN 1 WHEN 'text' THEN 2 WHEN 'array' THEN 3 WHEN 'object' THEN 3 ELSE 4 END)"
                    ),
                    value: format!(
                        "(CASE json_type(_data, {path}) WHEN 'array' THEN NULL WHEN 'object' THEN NULL \
                         ELSE _data ->> {path} END)"
                    ),
                    kind: None,
                }
            }
        }
    }

    /// What an index gives of this order among rows that are the same in the paths `fixed`; `None` if no index gives
    /// it. An order that leaves ties between rows of one page is given too: only these are sorted by id then.
    pub(super) fn given(&self, fixed: &[&[String]], sort: &[SortKey]) -> Option<Given> {
        let is_fixed = |key: &&SortKey| fixed.contains(&key.path.as_slice());
        let sort: Vec<&SortKey> = sort.iter().filter(|key| !is_fixed(key)).collect();
        // The index of the ids.
        let by_id = (fixed.is_empty() && sort.is_empty()).then_some(Given { lead: 0, backwards: false });
        let indexes = self.indexes.iter().filter_map(|index| {
            let lead = index.iter().take_while(is_fixed).count();
            let rest: Vec<&SortKey> = index.iter().filter(|key| !is_fixed(key)).collect();
            let forwards = if sort.is_empty() { rest.is_empty() } else { rest.starts_with(&sort) };
            let backwards = match (sort.as_slice(), rest.first()) {
                ([wanted], Some(key)) => wanted.path == key.path && wanted.descending != key.descending,
                _ => false,
            };
            (forwards || backwards).then_some(Given { lead, backwards })
        });
        by_id.into_iter().chain(indexes).max_by_key(|given| (given.lead, !given.backwards))
    }

    /// The statement that makes the table, without property columns.
    pub(super) fn create(&self) -> String {
        format!("CREATE TABLE {}({OWN_COLUMNS})", self.name)
    }

    /// Property columns: name, quoted, and the statement's part that defines it.
    pub(super) fn column_definitions(&self) -> Vec<(String, String)> {
        self.columns
            .iter()
            .map(|column| {
                let affinity = affinity(column.kind);
                let path = quote_text(&json_path(std::slice::from_ref(&column.property)));
                (column.name.clone(), format!("{} {affinity}AS (_data ->> {path}) VIRTUAL", column.name))
            })
            .collect()
    }

    /// Indexes: name, quoted, and the statement that makes it. The name holds a hash of the statement and of the types
    /// of its columns, so an index of another definition has another name, and none outlasts a column of it.
    pub(super) fn index_definitions(&self) -> Vec<(String, String)> {
        self.indexes
            .iter()
            .map(|index| {
                let mut terms = Vec::new();
                let mut kinds = String::new();
                for key in index {
                    let operand = self.operand(&key.path);
                    let direction = if key.descending { " DESC" } else { "" };
                    kinds.push_str(operand.kind.map_or("", affinity));
                    terms.push(operand.class);
                    terms.push(format!("{}{direction}", operand.value));
                }
                let terms = terms.join(", ");
                let hash = terms.bytes().chain(kinds.bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                });
                let name = quote_name(&format!("_{}_{hash:016x}", self.model));
                let sql = format!("CREATE INDEX {name} ON {}({terms}, _id)", self.name);
                (name, sql)
            })
            .collect()
    }
}

/// A column's type, with the space that follows it.
const fn affinity(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text => "TEXT ",
        ColumnKind::Integer => "INTEGER ",
        // Keeps integers as integers, where REAL would round those beyond 2^53.
        ColumnKind::Number => "NUMERIC ",
        ColumnKind::Boolean => "BOOLEAN ",
        ColumnKind::Any => "",
    }
}

/// SQLite keeps names that start with `sqlite_` for itself; no model id starts with `_`.
fn table_name(model: &str) -> String {
    let reserved = model.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"));
    if reserved { format!("_{model}") } else { model.to_owned() }
}

/// SQLite takes names that differ only in ASCII case for the same; a number tells later ones apart.
fn free_name(property: &str, taken: &HashSet<String>) -> String {
    let mut name = property.to_owned();
    let mut number = 1;
    while taken.contains(&name.to_ascii_lowercase()) {
        number += 1;
        name = format!("{property}~{number}");
    }
    name
}

/// `$."a"."b"`, each name as a JSON string.
fn json_path(path: &[String]) -> String {
    path.iter().fold(String::from("$"), |mut text, name| {
        text.push('.');
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text
    })
}

fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

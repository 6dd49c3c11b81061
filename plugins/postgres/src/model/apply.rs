//! Events as rows: the outcome of a batch for each instance, and the statements that write it.

use std::collections::HashMap;

use serde_json::Value;
use snaphook_driver::time::Millis;
use snaphook_driver::{CarryOver, DriverError, ErrorKind, Event, EventKind, Json, Position, Result, json};
use tokio_postgres::types::{ToSql, Type};

use super::registry::{PreparedTable, Registry};
use super::table::{OWN, Table};
use super::writing::BoundStatement;
use crate::connection::Database;

/// Maximum size of the data in one statement.
const BYTES_MAX: usize = 16 << 20;
const ROWS_MAX: usize = 5_000;

/// The outcome of a batch for one instance.
#[derive(Clone, Copy)]
enum InstanceOutcome<'a> {
    Deleted,
    /// `created` is used if the row is new, which is certain if the batch created the instance (`is_new`).
    There {
        event: &'a Event,
        data: &'a str,
        is_new: bool,
        created: Millis,
    },
}

/// The last outcome of each instance of a model, in the order of first occurrence.
#[derive(Default)]
struct Outcomes<'a> {
    ids: Vec<&'a str>,
    outcomes: HashMap<&'a str, InstanceOutcome<'a>>,
}

/// The statements that apply the events after the checkpoint.
pub(super) fn commands<'a>(
    database: &Database,
    registry: &Registry,
    events: &'a [Event],
    checkpoint: Position,
) -> Result<Vec<BoundStatement<'a>>> {
    let mut models: Vec<(&str, Outcomes<'_>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for event in events.iter().filter(|event| event.position > checkpoint && event.kind.is_instance()) {
        let place = *places.entry(&event.model).or_insert_with(|| {
            models.push((&event.model, Outcomes::default()));
            models.len() - 1
        });
        models[place].1.add(event)?;
    }
    let mut commands = Vec::new();
    for (model, outcomes) in &models {
        let Some(known) = registry.models.get(*model) else {
            let message = format!("an instance event of `{model}`, which is not defined");
            return Err(DriverError::new(ErrorKind::Invalid, "apply", message));
        };
        outcomes.write(database, &known.table, known.prepared.as_ref(), &mut commands)?;
    }
    Ok(commands)
}

impl<'a> Outcomes<'a> {
    fn add(&mut self, event: &'a Event) -> Result<()> {
        let invalid = |what: &str| {
            let message = format!("`{}` without {what}", event.kind);
            DriverError::new(ErrorKind::Invalid, "apply", message).with("position", event.position)
        };
        let id = event.instance.as_deref().ok_or_else(|| invalid("an instance"))?;
        let before = self.outcomes.get(id).copied();
        if before.is_none() {
            self.ids.push(id);
        }
        let outcome = match event.kind {
            EventKind::InstanceDeleted => InstanceOutcome::Deleted,
            _ => {
                let data = event.data.as_ref().map(Json::as_str).ok_or_else(|| invalid("data"))?;
                let (is_new, created) = match before {
                    _ if event.kind == EventKind::InstanceCreated => (true, event.time),
                    Some(InstanceOutcome::There { is_new, created, .. }) => (is_new, created),
                    Some(InstanceOutcome::Deleted) => (true, event.time),
                    None => (false, event.time),
                };
                InstanceOutcome::There { event, data, is_new, created }
            }
        };
        self.outcomes.insert(id, outcome);
        Ok(())
    }

    fn write(
        &self,
        database: &Database,
        table: &Table,
        prepared: Option<&PreparedTable>,
        commands: &mut Vec<BoundStatement<'a>>,
    ) -> Result<()> {
        let mut deleted: Vec<&[u8]> = Vec::new();
        // New rows, and rows that keep their creation time if they already exist.
        let mut rows = [Rows::new(table), Rows::new(table)];
        let mut carried = prepared.map(|prepared| Carried::new(&prepared.table));
        for id in &self.ids {
            match self.outcomes[id] {
                InstanceOutcome::Deleted => deleted.push(id.as_bytes()),
                InstanceOutcome::There { event, data, is_new, created } => {
                    let has_keys = !table.layout.columns.is_empty();
                    let tree = if has_keys || prepared.is_some() { Some(parse(event, data)?) } else { None };
                    let rows = &mut rows[usize::from(!is_new)];
                    rows.add(id, event, created, data, table, tree.as_ref());
                    if rows.is_full() {
                        commands.push(std::mem::replace(rows, Rows::new(table)).command(database, table, is_new));
                    }
                    if let (Some(prepared), Some(carried), Some(tree)) = (prepared, &mut carried, tree) {
                        let version = prepared.shape.version;
                        carried.add(id.as_bytes(), event.position as i64, tree, &prepared.carry, version);
                    }
                }
            }
        }
        for (rows, is_new) in rows.into_iter().zip([true, false]) {
            if !rows.ids.is_empty() {
                commands.push(rows.command(database, table, is_new));
            }
        }
        // After the rows from which they are derived.
        if let Some(carried) = carried {
            commands.extend(carried.commands(database, table, true));
        }
        if !deleted.is_empty() {
            for table in [Some(table), prepared.map(|prepared| &prepared.table)].into_iter().flatten() {
                let text = format!("DELETE FROM @.{} WHERE id = ANY($1)", table.name());
                let ids: Box<dyn ToSql + Sync + Send> = Box::new(deleted.clone());
                commands.push(BoundStatement { sql: database.sql(&text, &[Type::BYTEA_ARRAY]), parameters: vec![ids] });
            }
        }
        Ok(())
    }
}

fn parse(event: &Event, data: &str) -> Result<Value> {
    json::parse(data).map_err(|error| {
        DriverError::new(ErrorKind::Invalid, "apply", "the event's data is not valid JSON")
            .with("position", event.position)
            .because(error)
    })
}

/// The rows of one statement, by column.
struct Rows<'a> {
    ids: Vec<&'a [u8]>,
    /// Version, revision, position, created, updated.
    numbers: [Vec<i64>; 5],
    data: Vec<&'a str>,
    keys: Vec<Vec<Vec<u8>>>,
    bytes: usize,
}

impl<'a> Rows<'a> {
    fn new(table: &Table) -> Rows<'a> {
        let keys = vec![Vec::new(); table.layout.columns.len()];
        Rows { ids: Vec::new(), numbers: Default::default(), data: Vec::new(), keys, bytes: 0 }
    }

    fn add(&mut self, id: &'a str, event: &Event, created: Millis, data: &'a str, table: &Table, tree: Option<&Value>) {
        self.ids.push(id.as_bytes());
        let numbers = [event.model_version as i64, event.revision as i64, event.position as i64, created, event.time];
        self.numbers.iter_mut().zip(numbers).for_each(|(column, number)| column.push(number));
        self.data.push(data);
        let keys = tree.into_iter().flat_map(|tree| table.layout.keys(tree));
        self.keys.iter_mut().zip(keys).for_each(|(column, key)| column.push(key));
        self.bytes += data.len();
    }

    fn is_full(&self) -> bool {
        self.bytes > BYTES_MAX || self.ids.len() >= ROWS_MAX
    }

    fn command(self, database: &Database, table: &Table, is_new: bool) -> BoundStatement<'a> {
        let count = table.layout.columns.len();
        let columns = format!("{OWN}{}", table.key_columns(""));
        let kept = if is_new { "" } else { "created_at" };
        let changes = columns.split(", ").filter(|name| *name != "id" && *name != kept);
        let changes: Vec<String> = changes.map(|name| format!("{name} = excluded.{name}")).collect();
        let text = format!(
            "INSERT INTO @.{}({columns}) SELECT * FROM unnest({}) ON CONFLICT (id) DO UPDATE SET {}",
            table.name(),
            numbered(1, 7 + count),
            changes.join(", ")
        );
        let mut types = vec![Type::BYTEA_ARRAY];
        types.extend(vec![Type::INT8_ARRAY; 5]);
        types.push(Type::TEXT_ARRAY);
        types.extend(vec![Type::BYTEA_ARRAY; count]);
        let mut parameters: Vec<Box<dyn ToSql + Sync + Send + 'a>> = vec![Box::new(self.ids)];
        parameters.extend(self.numbers.into_iter().map(|column| Box::new(column) as Box<dyn ToSql + Sync + Send>));
        parameters.push(Box::new(self.data));
        parameters.extend(self.keys.into_iter().map(|column| Box::new(column) as Box<dyn ToSql + Sync + Send>));
        BoundStatement { sql: database.sql(&text, &types), parameters }
    }
}

/// Rows that are carried over from a model's table to its next one.
pub(super) struct Carried<'t> {
    to: &'t Table,
    parts: Vec<Part>,
}

#[derive(Default)]
struct Part {
    ids: Vec<Vec<u8>>,
    positions: Vec<i64>,
    /// Version and data, where they change.
    versions: Vec<Option<i64>>,
    data: Vec<Option<String>>,
    keys: Vec<Vec<Vec<u8>>>,
    bytes: usize,
}

impl<'t> Carried<'t> {
    pub(super) fn new(to: &'t Table) -> Carried<'t> {
        Carried { to, parts: Vec::new() }
    }

    /// Adds a row with its converted data and its keys.
    pub(super) fn add(&mut self, id: &[u8], position: i64, mut tree: Value, carry: &CarryOver, version: u64) {
        let changed = tree.as_object_mut().is_some_and(|object| !carry.is_empty() && carry.apply(object));
        let text = changed.then(|| tree.to_string());
        let bytes = text.as_ref().map_or(0, String::len);
        if self.parts.last().is_none_or(|part| part.bytes + bytes > BYTES_MAX || part.ids.len() >= ROWS_MAX) {
            self.parts.push(Part { keys: vec![Vec::new(); self.to.layout.columns.len()], ..Part::default() });
        }
        let Some(part) = self.parts.last_mut() else { return };
        part.ids.push(id.to_vec());
        part.positions.push(position);
        part.versions.push(text.is_some().then_some(version as i64));
        part.data.push(text);
        part.keys.iter_mut().zip(self.to.layout.keys(&tree)).for_each(|(column, key)| column.push(key));
        part.bytes += bytes;
    }

    /// The statements that insert the rows into `to`, unless they have changed in `from` since they were read. Existing
    /// rows are kept or, with `replaces`, replaced.
    pub(super) fn commands<'b>(self, database: &Database, from: &Table, replaces: bool) -> Vec<BoundStatement<'b>> {
        let (to, count) = (self.to, self.to.layout.columns.len());
        let keys = to.key_columns("");
        let columns = format!("{OWN}{keys}");
        let conflict = if replaces {
            let changes = columns.split(", ").filter(|name| *name != "id");
            let changes: Vec<String> = changes.map(|name| format!("{name} = excluded.{name}")).collect();
            format!("(id) DO UPDATE SET {}", changes.join(", "))
        } else {
            "DO NOTHING".to_owned()
        };
        let text = format!(
            "INSERT INTO @.{}({columns}) SELECT m.id, coalesce(u.model_version, m.model_version), m.revision, m.position, \
             m.created_at, m.updated_at, coalesce(u.data, m.data){} FROM unnest({}) \
             AS u(id, position, model_version, data{keys}) \
             JOIN @.{} m ON m.id = u.id AND m.position = u.position ON CONFLICT {conflict}",
            to.name(),
            to.key_columns("u."),
            numbered(1, 4 + count),
            from.name()
        );
        let mut types = vec![Type::BYTEA_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY, Type::TEXT_ARRAY];
        types.extend(vec![Type::BYTEA_ARRAY; count]);
        let sql = database.sql(&text, &types);
        let command = |part: Part| {
            let mut parameters: Vec<Box<dyn ToSql + Sync + Send>> =
                vec![Box::new(part.ids), Box::new(part.positions), Box::new(part.versions), Box::new(part.data)];
            parameters.extend(part.keys.into_iter().map(|column| Box::new(column) as Box<dyn ToSql + Sync + Send>));
            BoundStatement { sql: sql.clone(), parameters }
        };
        self.parts.into_iter().map(command).collect()
    }
}

/// `$1, $2, …`
fn numbered(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

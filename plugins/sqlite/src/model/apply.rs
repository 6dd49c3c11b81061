//! Applies events: the statements that write the resulting rows.

use rusqlite::{CachedStatement, Connection, ToSql, params};
use snaphook_driver::{DriverError, ErrorKind, Event, EventKind, Json, Result};

use super::open_models::{ModelWriter, Tables};
use super::table::Table;
use crate::fault::fault;

impl ModelWriter {
    pub(super) fn apply<'a>(&self, events: impl Iterator<Item = &'a Event>, tables: &Tables) -> Result<()> {
        // Most events of a batch belong to one model, so its statements are only taken from the cache once.
        let mut ready: Option<Ready<'_>> = None;
        for event in events {
            let invalid = |message: String| {
                DriverError::new(ErrorKind::Invalid, "apply", message).with("position", event.position)
            };
            let mut statements = match ready.take() {
                Some(same) if same.model == event.model => same,
                _ => match tables.get(&event.model) {
                    Some(table) => {
                        Ready { connection: &self.connection, model: &event.model, table, prepared: [None, None, None] }
                    }
                    None => {
                        return Err(invalid(format!("an instance event of `{}`, which is not defined", event.model)));
                    }
                },
            };
            statements.apply(event, invalid)?;
            ready = Some(statements);
        }
        Ok(())
    }
}

/// The statements that write one model's rows, prepared on demand.
struct Ready<'a> {
    connection: &'a Connection,
    model: &'a str,
    table: &'a Table,
    prepared: [Option<CachedStatement<'a>>; 3],
}

/// Indexes in [`Ready`] and [`Table::writes`].
const CREATE: usize = 0;
const UPDATE: usize = 1;
const DELETE: usize = 2;

impl Ready<'_> {
    fn apply(&mut self, event: &Event, invalid: impl Fn(String) -> DriverError) -> Result<()> {
        let Some(instance) = &event.instance else {
            return Err(invalid(format!("`{}` without an instance", event.kind)));
        };
        if event.kind == EventKind::InstanceDeleted {
            return self.run(DELETE, params![instance]).map(drop);
        }
        let data = event.data.as_ref().map(Json::as_str);
        let data = data.ok_or_else(|| invalid(format!("`{}` without data", event.kind)))?;
        let (version, revision, position) = (event.model_version as i64, event.revision as i64, event.position as i64);
        let row = params![instance, version, revision, position, event.time, data];
        if event.kind == EventKind::InstanceCreated || self.run(UPDATE, row)? == 0 {
            self.run(CREATE, row)?;
        }
        Ok(())
    }

    fn run(&mut self, which: usize, parameters: &[&dyn ToSql]) -> Result<usize> {
        let statement = match &mut self.prepared[which] {
            Some(statement) => statement,
            empty => empty.insert(self.connection.prepare_cached(&self.table.writes[which]).map_err(fault("apply"))?),
        };
        statement.execute(parameters).map_err(fault("apply"))
    }
}

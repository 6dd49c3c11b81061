//! Models by number: the log refers to a model by a small integer, so that its indexes stay small.
//!
//! Invariant: numbers are assigned in order from 1 and never change; the table only grows. The writer extends its own
//! copy and publishes it as a whole after the commit, so that readers never block it.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, params};

#[derive(Clone, Default)]
pub(super) struct Names {
    by_name: HashMap<Arc<str>, i64>,
    /// Number `n` is at index `n - 1`.
    by_number: Vec<Arc<str>>,
}

impl Names {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Names> {
        let mut names = Names::default();
        let mut statement = connection.prepare("SELECT name FROM models ORDER BY number")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        for name in rows {
            names.push(name?.into());
        }
        Ok(names)
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.by_name.get(name).copied()
    }

    pub(super) fn name(&self, number: i64) -> Option<&Arc<str>> {
        usize::try_from(number - 1).ok().and_then(|index| self.by_number.get(index))
    }

    /// Assigns a number to a new model within the caller's transaction.
    pub(super) fn add(&mut self, connection: &Connection, name: &str) -> rusqlite::Result<i64> {
        let number = self.by_number.len() as i64 + 1;
        connection
            .prepare_cached("INSERT INTO models(number, name) VALUES (?1, ?2)")?
            .execute(params![number, name])?;
        self.push(name.into());
        Ok(number)
    }

    fn push(&mut self, name: Arc<str>) {
        self.by_name.insert(Arc::clone(&name), self.by_number.len() as i64 + 1);
        self.by_number.push(name);
    }
}

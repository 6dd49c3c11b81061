//! The conditions of a query as SQL with parameters.

use rusqlite::types::Value as Sql;

/// Conditions joined with AND, with their parameters in order of appearance.
#[derive(Clone, Default)]
pub(super) struct Statement {
    pub(super) conditions: String,
    pub(super) parameters: Vec<Sql>,
}

impl Statement {
    pub(super) fn and(&mut self, write: impl FnOnce(&mut Statement)) {
        if !self.conditions.is_empty() {
            self.conditions.push_str(" AND ");
        }
        write(self);
    }

    pub(super) fn push(&mut self, sql: &str) {
        self.conditions.push_str(sql);
    }

    pub(super) fn bind(&mut self, value: Sql) {
        self.conditions.push('?');
        self.parameters.push(value);
    }

    /// Appends another statement with its parameters.
    pub(super) fn append(&mut self, other: Statement) {
        self.conditions.push_str(&other.conditions);
        self.parameters.extend(other.parameters);
    }

    pub(super) fn clause(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!(" WHERE {}", self.conditions) }
    }
}

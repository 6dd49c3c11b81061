//! The last events of streams, stored separately so that the judge finds them at once.

use std::borrow::Cow;
use std::collections::BTreeMap;

use snaphook_driver::StreamRef;
use snaphook_driver::judge::Tail;
use tokio_postgres::types::Type;

use super::row::signed;
use crate::connection::Database;
use crate::session::Parameter;
use crate::sql::Sql;
use crate::text::{escape, instance};

/// The statement that writes [`Tails`].
pub(super) fn write(database: &Database) -> Sql {
    database.sql(
        "INSERT INTO @.streams(model, instance, position, ended) SELECT * FROM unnest($1, $2, $3, $4)
         ON CONFLICT (model, instance) DO UPDATE SET position = excluded.position, ended = excluded.ended",
        &[Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::BOOL_ARRAY],
    )
}

/// The last events to write, by column.
pub(super) struct Tails<'a> {
    model: Vec<Cow<'a, str>>,
    instance: Vec<Cow<'a, str>>,
    position: Vec<i64>,
    ended: Vec<bool>,
}

impl<'a> Tails<'a> {
    pub(super) fn new(tails: &BTreeMap<StreamRef<'a>, Tail>) -> Tails<'a> {
        Tails {
            model: tails.keys().map(|stream| escape(stream.model)).collect(),
            instance: tails.keys().map(|stream| instance(*stream)).collect(),
            position: tails.values().map(|tail| signed(tail.position)).collect(),
            ended: tails.values().map(|tail| tail.ended).collect(),
        }
    }

    pub(super) fn parameters(&self) -> [Parameter<'_>; 4] {
        [&self.model, &self.instance, &self.position, &self.ended]
    }
}

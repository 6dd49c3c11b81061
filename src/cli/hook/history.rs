//! `snaphook hook history`: the chains that a phase has had.

use clap::Args;
use serde_json::Value;

use super::at::{At, at};
use super::shown::{chain, text};
use crate::cli::client::{Client, with_query};
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::output;

/// List the present and earlier hooks of a phase, newest first
///
/// `snaphook hook rollback` binds earlier ones again.
#[derive(Args, Debug)]
pub(in crate::cli) struct History {
    /// Model and phase, such as `order.preCreate`
    #[arg(value_parser = at, value_name = "MODEL.PHASE")]
    at: At,
    /// The maximum number of entries
    #[arg(long, short = 'n', value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print one JSON document per line
    #[arg(long)]
    json: bool,
}

impl History {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        if self.at.hook.is_some() {
            let At { model, phase, .. } = &self.at;
            return Err(Failure::new(format!("the history is that of a whole chain: name `{model}.{phase}`")));
        }
        let client = global.client()?;
        let mut pages = Pages::new(&client, &self.at);
        let mut rows = Vec::new();
        while rows.len() < self.limit as usize
            && let Some(past) = pages.next().await?
        {
            rows.push(past);
        }
        if self.json {
            return rows.iter().try_for_each(output::line);
        }
        if rows.is_empty() {
            return output::line(format!("nothing was ever bound to `{}`", self.at));
        }
        let rows: Vec<_> = rows.iter().map(row).collect();
        output::table(&["POSITION", "TIME", "BY", "HOOKS"], &rows)
    }
}

fn row(past: &Value) -> Vec<String> {
    let position = past.get("position").and_then(Value::as_u64).unwrap_or(0);
    let actor = past.get("actor").map(|actor| text(actor, "id")).unwrap_or_default();
    vec![position.to_string(), text(past, "time"), actor, chain(hooks(past))]
}

/// The hooks of one chain.
pub(super) fn hooks(past: &Value) -> &[Value] {
    past.get("chain").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The chains of a phase, newest first.
pub(super) struct Pages<'a> {
    client: &'a Client,
    at: &'a At,
    /// The page in hand, last first.
    items: Vec<Value>,
    before: Option<u64>,
    is_last: bool,
}

impl<'a> Pages<'a> {
    pub(super) fn new(client: &'a Client, at: &'a At) -> Pages<'a> {
        Pages { client, at, items: Vec::new(), before: None, is_last: false }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Value>> {
        // A page may have no items and still not be the last.
        while self.items.is_empty() && !self.is_last {
            let mut query = vec![("limit", "100".to_owned())];
            query.extend(self.before.map(|before| ("before", before.to_string())));
            let mut page = self.client.get(&with_query(&self.at.path(&["history"]), &query)).await?;
            self.before = page.get("next").and_then(Value::as_u64);
            self.is_last = self.before.is_none();
            if let Some(Value::Array(mut items)) = page.get_mut("items").map(Value::take) {
                items.reverse();
                self.items = items;
            }
        }
        Ok(self.items.pop())
    }
}

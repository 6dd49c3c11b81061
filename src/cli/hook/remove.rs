//! `snaphook hook remove`: takes hooks away.

use clap::Args;
use serde_json::Value;

use super::at::{At, at};
use super::shown::{bindings, summary, text};
use crate::cli::client::{ClientBody, with_query};
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::{identity, output};

/// Remove the hooks of a phase, or one hook of its chain
///
/// They stay in the history: `snaphook hook rollback` binds them again.
///
/// Example: snaphook hook remove order.preCreate/check
#[derive(Args, Debug)]
pub(in crate::cli) struct Remove {
    /// Model and phase, such as `order.preCreate`; `order.preCreate/check` for one hook of a chain
    #[arg(value_parser = at, value_name = "MODEL.PHASE")]
    at: At,
}

impl Remove {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        let client = global.client()?;
        output::note(identity::own_server(&client, global).await?);
        let place = self.at.path(&[]);
        let Value::Array(bound) = client.get(&place).await? else {
            return Err(Failure::new(format!("{} answered no list at `{place}`", client.address())));
        };
        let is_meant = |hook: &Value| self.at.hook.as_ref().is_none_or(|name| *name == text(hook, "name"));
        let (gone, rest): (Vec<Value>, Vec<Value>) = bound.into_iter().partition(is_meant);
        if gone.is_empty() {
            return Err(Failure::new(format!("nothing is bound to `{}`", self.at)));
        }
        match rest.first() {
            None => client.delete(&place).await?,
            Some(first) => {
                let origin = [("origin", text(first, "origin"))];
                client.put(&with_query(&place, &origin), ClientBody::json(&bindings(&rest))).await.map(drop)?;
            }
        }
        let (model, phase) = (&self.at.model, self.at.phase);
        gone.iter().try_for_each(|hook| {
            output::line(format!("{model}.{phase}/{} is removed (was {})", text(hook, "name"), summary(hook)))
        })
    }
}

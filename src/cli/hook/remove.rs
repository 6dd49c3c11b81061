//! `snaphook hook remove`: takes hooks away.

use clap::Args;
use serde_json::Value;

use super::at::{At, at};
use super::chain::{Chain, READS_MAX, busy, changed};
use super::shown::{summary, text};
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
        let is_meant = |hook: &Value| self.at.hook.as_ref().is_none_or(|name| *name == text(hook, "name"));
        let positions = |hooks: &[Value]| hooks.iter().map(|hook| hook.get("position").cloned()).collect::<Vec<_>>();
        let mut first_seen = None;
        for _ in 0..READS_MAX {
            let chain = Chain::read(&client, &self.at).await?;
            let (gone, rest): (Vec<Value>, Vec<Value>) = chain.hooks.iter().cloned().partition(is_meant);
            // Only what was there when the command began.
            if *first_seen.get_or_insert_with(|| positions(&gone)) != positions(&gone) {
                return Err(changed(&self.at));
            }
            if gone.is_empty() {
                return Err(Failure::new(format!("nothing is bound to `{}`", self.at)));
            }
            if chain.replace(&rest).await? {
                let (model, phase) = (&self.at.model, self.at.phase);
                return gone.iter().try_for_each(|hook| {
                    output::line(format!("{model}.{phase}/{} is removed (was {})", text(hook, "name"), summary(hook)))
                });
            }
        }
        Err(busy(&self.at))
    }
}

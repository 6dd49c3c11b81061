//! The chain of a phase, read to be replaced: only if nobody has changed it since.

use serde_json::Value;

use super::at::At;
use super::shown::{bindings, text};
use crate::cli::client::{Client, ClientBody, path, with_query};
use crate::cli::failure::{Failure, Result};

/// How often a chain is read again because others changed its model in the meantime.
pub(super) const READS_MAX: usize = 5;

/// A chain as it was read.
pub(super) struct Chain<'a> {
    client: &'a Client,
    place: String,
    /// Of the model, of which the chain is a part.
    tag: String,
    pub(super) hooks: Vec<Value>,
}

impl<'a> Chain<'a> {
    pub(super) async fn read(client: &'a Client, at: &At) -> Result<Chain<'a>> {
        // First: a change between the two requests is noticed, too.
        let tag = client.tag(&path(&["models", &at.model])).await?;
        let place = at.path(&[]);
        let Value::Array(hooks) = client.get(&place).await? else {
            return Err(Failure::new(format!("{} returned no list at `{place}`", client.address())));
        };
        Ok(Chain { client, place, tag, hooks })
    }

    /// Binds other hooks by their artifacts; none: removes the chain. `false`: somebody has changed the model since, and nothing
    /// happened.
    pub(super) async fn replace(&self, hooks: &[Value]) -> Result<bool> {
        match hooks.first() {
            None => self.client.delete_if(&self.place, &self.tag).await,
            // As they were bound: `snaphook apply` goes on to treat them as its own, or not.
            Some(first) => {
                let place = with_query(&self.place, &[("origin", text(first, "origin"))]);
                self.client.put_if(&place, ClientBody::json(&bindings(hooks)), &self.tag).await
            }
        }
    }
}

/// What the user would change is no longer what the command has seen.
pub(super) fn changed(at: &At) -> Failure {
    let At { model, phase, .. } = at;
    Failure::new(format!(
        "somebody changed the hooks of `{model}.{phase}` in the meantime, so nothing was done; see `snaphook hook history \
         {model}.{phase}`, then run the command again"
    ))
}

/// Others change the model again and again.
pub(super) fn busy(at: &At) -> Failure {
    Failure::new(format!(
        "`{}` was changed {READS_MAX} times in the meantime, so nothing was done; try again",
        at.model
    ))
}

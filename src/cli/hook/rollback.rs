//! `snaphook hook rollback`: binds again what was bound before.

use clap::Args;
use serde_json::Value;

use super::at::{At, at};
use super::history::{Pages, hooks};
use super::shown::{bindings, chain, text};
use crate::cli::client::{Body, with_query};
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::{identity, output};

/// Bind again what was bound in a phase before
///
/// The whole chain, as one change: what is bound now stays in the history, so a rollback can be rolled back.
///
/// Example: snaphook hook rollback order.preCreate
#[derive(Args, Debug)]
pub(in crate::cli) struct Rollback {
    /// Model and phase, such as `order.preCreate`
    #[arg(value_parser = at, value_name = "MODEL.PHASE")]
    at: At,
    /// The position or the artifact (its first digits are enough) that `hook history` prints [default: the chain before the
    /// present one]
    #[arg(long, value_name = "POSITION|DIGEST")]
    to: Option<String>,
}

impl Rollback {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        let at = &self.at;
        if at.hook.is_some() {
            return Err(Failure::new(format!("a chain is rolled back as a whole: name `{}.{}`", at.model, at.phase)));
        }
        let client = global.client()?;
        output::note(identity::own_server(&client, global).await?);
        let mut pages = Pages::new(&client, at);
        let Some(now) = pages.next().await? else {
            return Err(Failure::new(format!("nothing was ever bound to `{at}`")));
        };
        let target = loop {
            let Some(past) = pages.next().await? else {
                return Err(match &self.to {
                    None => Failure::new(format!(
                        "`{at}` had no other hooks before; `snaphook hook remove {at}` removes them"
                    )),
                    Some(to) => Failure::new(format!(
                        "`{at}` had nothing at `{to}` before the present hooks; `snaphook hook history {at}` lists what it had"
                    )),
                });
            };
            if self.to.as_deref().is_none_or(|to| is_meant(&past, to)) {
                break past;
            }
        };
        match hooks(&target) {
            [] => client.delete(&at.path(&[])).await?,
            chain => {
                // As it was bound then: `snaphook apply` goes on to treat it as its own, or not.
                let origin = [("origin", text(&chain[0], "origin"))];
                client.put(&with_query(&at.path(&[]), &origin), Body::json(&bindings(chain))).await.map(drop)?;
            }
        }
        let position = target.get("position").and_then(Value::as_u64).unwrap_or(0);
        output::line(format!(
            "{at} is as of position {position}: {} (was {})",
            chain(hooks(&target)),
            chain(hooks(&now))
        ))?;
        if hooks(&target).iter().any(|hook| hook.get("library").is_some()) {
            output::warn("of a native library the file that is in the server's folder runs, not the one of that time");
        }
        if hooks(&target).iter().chain(hooks(&now)).any(|hook| text(hook, "origin") == "files") {
            output::note("the next `snaphook apply` binds what the files say");
        }
        Ok(())
    }
}

/// Digits alone are a position.
fn is_meant(past: &Value, to: &str) -> bool {
    if to.bytes().all(|byte| byte.is_ascii_digit()) {
        return past.get("position").and_then(Value::as_u64).is_some_and(|position| position.to_string() == to);
    }
    let digits = to.strip_prefix("sha256:").unwrap_or(to);
    let has = |hook: &Value| text(hook, "artifact").trim_start_matches("sha256:").starts_with(digits);
    !digits.is_empty() && hooks(past).iter().any(has)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets() {
        let past = json!({"position": 12, "chain": [{"artifact": "sha256:12ab34"}]});
        for (to, meant) in
            [("12", true), ("sha256:12", true), ("12ab", true), ("1", false), ("sha256:13", false), ("sha256:", false)]
        {
            assert_eq!(is_meant(&past, to), meant, "{to}");
        }
    }
}

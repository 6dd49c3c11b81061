//! `snaphook hook rollback`: binds again what was bound before.

use clap::Args;
use serde_json::Value;

use super::at::{At, at};
use super::chain::{Chain, READS_MAX, busy, changed};
use super::history::{Pages, hooks};
use super::shown::{chain, text};
use crate::cli::client::Client;
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::{identity, output};

/// As many as the server asks for.
const DIGITS_MIN: usize = 4;

/// Bind the previous hooks of a phase again
///
/// Replaces the whole chain in one change. The present chain stays in the history, so a rollback can be rolled back.
///
/// Example: snaphook hook rollback order.preCreate
#[derive(Args, Debug)]
pub(in crate::cli) struct Rollback {
    /// Model and phase, such as `order.preCreate`
    #[arg(value_parser = at, value_name = "MODEL.PHASE")]
    at: At,
    /// A position, or the first digits of an artifact's digest, from `hook history` [default: the chain before the present
    /// one]
    #[arg(long, value_name = "POSITION|DIGEST")]
    to: Option<String>,
}

impl Rollback {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        let at = &self.at;
        if at.hook.is_some() {
            return Err(Failure::new(format!("a chain is rolled back as a whole: name `{}.{}`", at.model, at.phase)));
        }
        if let Some(digits) = self.to.as_deref().and_then(digits_of)
            && digits.len() < DIGITS_MIN
        {
            return Err(Failure::new(format!(
                "`{digits}` is too short: an artifact needs at least {DIGITS_MIN} digits"
            )));
        }
        let client = global.client()?;
        output::note(identity::own_server(&client, global).await?);
        let mut first_seen = None;
        for _ in 0..READS_MAX {
            let bound = Chain::read(&client, at).await?;
            let (now, target) = self.find(&client).await?;
            // Only from the chain that was there when the command began.
            if *first_seen.get_or_insert(position(&now)) != position(&now) {
                return Err(changed(at));
            }
            if bound.replace(hooks(&target)).await? {
                return self.report(&now, &target);
            }
        }
        Err(busy(at))
    }

    /// The present chain, and the one to bind again.
    async fn find(&self, client: &Client) -> Result<(Value, Value)> {
        let at = &self.at;
        let mut pages = Pages::new(client, at);
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
        if let Some(digits) = self.to.as_deref().and_then(digits_of) {
            let mut known = artifact_of(&target, digits);
            while let Some(past) = pages.next().await? {
                let other = artifact_of(&past, digits);
                if other.is_some() && known.is_some() && other != known {
                    return Err(Failure::new(format!(
                        "several artifacts of `{at}` begin with `{digits}`; use more digits, or a position of `snaphook hook \
                         history {at}`"
                    )));
                }
                known = known.or(other);
            }
        }
        Ok((now, target))
    }

    fn report(&self, now: &Value, target: &Value) -> Result<()> {
        output::line(format!(
            "{} is rolled back to position {}: {} (was {})",
            self.at,
            position(target),
            chain(hooks(target)),
            chain(hooks(now))
        ))?;
        if hooks(target).iter().any(|hook| hook.get("library").is_some()) {
            output::warn("native libraries are not rolled back: the file in the server's folder runs");
        }
        if hooks(target).iter().chain(hooks(now)).any(|hook| text(hook, "origin") == "files") {
            output::note("the next `snaphook apply` binds the hooks in the files again");
        }
        Ok(())
    }
}

fn position(past: &Value) -> u64 {
    past.get("position").and_then(Value::as_u64).unwrap_or(0)
}

fn is_meant(past: &Value, to: &str) -> bool {
    match digits_of(to) {
        Some(digits) => artifact_of(past, digits).is_some(),
        None => position(past).to_string() == to,
    }
}

/// The first digits of a digest; `None` for a position, which is written in decimal digits alone.
fn digits_of(to: &str) -> Option<&str> {
    match to.strip_prefix("sha256:") {
        Some(digits) => Some(digits),
        None => Some(to).filter(|to| !to.bytes().all(|byte| byte.is_ascii_digit())),
    }
}

/// The artifact of a chain that begins with these digits.
fn artifact_of(past: &Value, digits: &str) -> Option<String> {
    let digest = |hook: &Value| text(hook, "artifact").trim_start_matches("sha256:").to_owned();
    hooks(past).iter().map(digest).find(|artifact| artifact.starts_with(digits))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn targets() {
        let past = json!({"position": 12, "chain": [{"artifact": "sha256:12ab34"}]});
        for (to, meant) in [("12", true), ("sha256:12", true), ("12ab", true), ("1", false), ("sha256:13", false)] {
            assert_eq!(is_meant(&past, to), meant, "{to}");
        }
    }
}

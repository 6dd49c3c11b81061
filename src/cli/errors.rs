//! `snaphook errors`: post hooks that failed for good.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, path, with_query};
use super::failure::{Failure, Result};
use super::global::Global;
use super::output;

/// How often a progress bar looks.
const LOOK: Duration = Duration::from_millis(100);

/// List, retry and drop post hook runs that failed permanently
#[derive(Debug, Subcommand)]
pub(super) enum Errors {
    /// List the recorded failures, oldest first
    List {
        #[command(flatten)]
        which: Which,
        /// Print one JSON document per line, with the event, the log lines and all other details
        #[arg(long)]
        json: bool,
    },
    /// Retry failed runs with the hooks that are bound now; successful ones leave the list
    Retry {
        #[command(flatten)]
        chosen: Chosen,
        /// Only count the runs
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove failures from the list without a retry
    Drop {
        #[command(flatten)]
        chosen: Chosen,
    },
}

#[derive(Args, Debug)]
pub(super) struct Which {
    /// Only of this model
    #[arg(long)]
    model: Option<String>,
    /// Only of the hook with this name
    #[arg(long)]
    hook: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Chosen {
    /// Ids of single failures, as printed by `errors list`
    #[arg(value_name = "ID", conflicts_with_all = ["model", "hook", "all"])]
    ids: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// All failures
    #[arg(long, conflicts_with_all = ["model", "hook"])]
    all: bool,
}

impl Which {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        query.extend(self.model.clone().map(|model| ("model", model)));
        query.extend(self.hook.clone().map(|hook| ("hook", hook)));
        query
    }
}

impl Chosen {
    /// Nothing chosen is not everything.
    fn check(&self) -> Result<()> {
        if self.ids.is_empty() && !self.all && self.which.query().is_empty() {
            return Err(Failure::new("name the ids of errors, or choose many with `--model`, `--hook` or `--all`"));
        }
        Ok(())
    }
}

impl Errors {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        match self {
            Errors::List { which, json } => list(global, which, *json).await,
            Errors::Retry { chosen, dry_run } => retry(global, chosen, *dry_run).await,
            Errors::Drop { chosen } => drop(global, chosen).await,
        }
    }
}

async fn each(global: &Global, which: &Which, on: impl FnMut(Value) -> Result<()>) -> Result<()> {
    let mut query = which.query();
    query.push(("limit", "1000".to_owned()));
    let next = |page: &Value, _: &Value| Some(("after", page.get("next")?.as_str()?.to_owned()));
    global.client()?.each(&path(&["errors"]), &query, next, on).await
}

fn text(record: &Value, name: &str) -> String {
    match record.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// A message on one line: the first, and if that ends in a colon also what it announces. `--json` has all of it.
///
/// A Python traceback announces its exception after lines about places, which are indented; a panic in Rust has its
/// message in the second line.
fn summary(message: &str) -> String {
    const TRACEBACK: &str = "Traceback (most recent call last):";
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    // A table of the configuration, which would permit what was denied, is not for one line.
    let second =
        lines.take_while(|line| !line.starts_with('[')).find(|line| !line.is_empty() && !line.starts_with(' '));
    match second.filter(|_| first.ends_with(':')) {
        Some(second) => format!("{} {second}", first.strip_suffix(TRACEBACK).unwrap_or(first).trim_end()).trim().into(),
        None => first.to_owned(),
    }
}

async fn list(global: &Global, which: &Which, json: bool) -> Result<()> {
    if json {
        return each(global, which, output::line).await;
    }
    let mut rows = Vec::new();
    each(global, which, |record| {
        let hook = format!("{}.{}/{}", text(&record, "model"), text(&record, "phase"), text(&record, "hook"));
        let message = summary(&text(&record, "message"));
        let columns = ["id", "time", "attempts", "cause"].map(|name| text(&record, name));
        let [id, time, attempts, cause] = columns;
        rows.push(vec![id, time, hook, attempts, cause, message]);
        Ok(())
    })
    .await?;
    if rows.is_empty() {
        return output::line("no errors");
    }
    output::table(&["ID", "TIME", "HOOK", "ATTEMPTS", "CAUSE", "MESSAGE"], &rows)
}

async fn retry(global: &Global, chosen: &Chosen, dry_run: bool) -> Result<()> {
    chosen.check()?;
    let client = global.client()?;
    let dry = dry_run.then(|| ("dry-run", "true".to_owned()));
    let (mut matched, mut succeeded) = (0, 0);
    // One that is gone does not keep the others from their turn.
    let mut missing = Vec::new();
    let mut count = |answer: &Value| {
        let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or(0);
        matched += number("matched");
        succeeded += number("succeeded");
    };
    if chosen.ids.is_empty() {
        let mut query = chosen.which.query();
        query.extend(dry);
        let started = client.post(&with_query("/errors/retry", &query), None).await?;
        match started.get("job").and_then(Value::as_str) {
            Some(job) => count(&follow(&client, job).await?),
            None => count(&started),
        }
    } else {
        let query: Vec<_> = dry.into_iter().collect();
        for id in &chosen.ids {
            let answer = match client.post(&with_query(&path(&["errors", id, "retry"]), &query), None).await {
                Ok(answer) => answer,
                Err(Failure::NotFound(message)) => {
                    missing.push(message);
                    continue;
                }
                Err(error) => return Err(error),
            };
            count(&answer);
            if let Some(error) = answer.get("error") {
                output::line(format!("{id} failed again: {}", text(error, "message")))?;
            }
        }
    }
    match dry_run {
        true => output::line(format!("{matched} would be retried"))?,
        false => output::line(format!("{matched} retried, {succeeded} succeeded"))?,
    }
    all_found(&missing)?;
    if dry_run {
        return Ok(());
    }
    if succeeded < matched {
        return Err(Failure::new(format!("{} failed again; `snaphook errors list` shows why", matched - succeeded)));
    }
    Ok(())
}

/// Looks on while the server retries; gives what [`retry`] counts.
async fn follow(client: &Client, job: &str) -> Result<Value> {
    let bar = output::progress_bar("retry");
    let job = loop {
        let job = client.get(&path(&["jobs", job])).await?;
        let number = |name: &str| job.get(name).and_then(Value::as_u64).unwrap_or(0);
        bar.set_length(number("total"));
        bar.set_position(number("done") + number("failed"));
        bar.set_message(format!("{} failed again", number("failed")));
        match job.get("state").and_then(Value::as_str) {
            Some("running") => tokio::time::sleep(LOOK).await,
            _ => break job,
        }
    };
    bar.finish_and_clear();
    match job.get("state").and_then(Value::as_str) {
        Some("done") => Ok(json!({"matched": job["total"], "succeeded": job["done"]})),
        Some("cancelled") => {
            Err(Failure::new(format!("the retry was cancelled: {} succeeded, {} failed", job["done"], job["failed"])))
        }
        _ => Err(Failure::new(format!("the retry ended early: {}", text(&job, "error")))),
    }
}

async fn drop(global: &Global, chosen: &Chosen) -> Result<()> {
    chosen.check()?;
    let client = global.client()?;
    let mut ids = chosen.ids.clone();
    let by_filter = ids.is_empty();
    if by_filter {
        each(global, &chosen.which, |record| {
            ids.push(text(&record, "id"));
            Ok(())
        })
        .await?;
    }
    let (mut dropped, mut missing) = (0, Vec::new());
    for id in &ids {
        match client.delete(&path(&["errors", id])).await {
            Ok(_) => dropped += 1,
            // Somebody else dropped or retried it since it was listed.
            Err(Failure::NotFound(_)) if by_filter => {}
            Err(Failure::NotFound(message)) => missing.push(message),
            Err(error) => return Err(error),
        }
    }
    output::line(format!("{dropped} dropped"))?;
    all_found(&missing)
}

/// Fails if something that was named is not there.
fn all_found(missing: &[String]) -> Result<()> {
    if missing.is_empty() { Ok(()) } else { Err(Failure::new(missing.join("\n"))) }
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn one_line_says_what_it_is() {
        let traceback = "Traceback (most recent call last):\n  File \"/0/app.py\", line 4, in check\nValueError: no";
        for (message, expected) in [
            ("threw Error: no (line 1, column 2)\n  at f", "threw Error: no (line 1, column 2)"),
            (traceback, "ValueError: no"),
            (&format!("the hook gave up: {traceback}"), "the hook gave up: ValueError: no"),
            ("panicked at src/lib.rs:1:2:\nno\nnote", "panicked at src/lib.rs:1:2: no"),
            (
                "denied; to allow it, add to config.toml:\n[[grants]]\nread = ['x']",
                "denied; to allow it, add to config.toml:",
            ),
            ("Traceback (most recent call last):", "Traceback (most recent call last):"),
            ("", ""),
        ] {
            assert_eq!(summary(message), expected, "{message}");
        }
    }
}

//! `snaphook model`: the models of a running server, listed, shown and written as files.

mod pull;

use clap::Subcommand;
use serde_json::Value;

use super::client::{Client, path};
use super::failure::Result;
use super::global::Global;
use super::output;

/// List and show the models of a running server, and write them as files
#[derive(Debug, Subcommand)]
pub(super) enum Model {
    /// List the models
    List {
        /// Print one JSON document per line
        #[arg(long)]
        json: bool,
    },
    /// Print a model as JSON: its schema, indexes, unique keys, rules and the names of its hooks
    Show {
        /// The model
        model: String,
        /// An earlier version [default: the present one]
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        version: Option<u64>,
    },
    Pull(pull::Pull),
}

impl Model {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        match self {
            Model::List { json } => list(&global.client()?, *json).await,
            Model::Show { model, version } => {
                let query: Vec<_> = version.iter().map(|version| ("version", version.to_string())).collect();
                let path = super::client::with_query(&path(&["models", model]), &query);
                let found = global.client()?.get(&path).await?;
                output::line(serde_json::to_string_pretty(&found).unwrap_or_else(|_| found.to_string()))
            }
            Model::Pull(pull) => pull.run(global).await,
        }
    }
}

async fn list(client: &Client, json: bool) -> Result<()> {
    let models = client.models().await?;
    if json {
        return models.iter().try_for_each(output::line);
    }
    if models.is_empty() {
        return output::line("no models");
    }
    let rows: Vec<_> = models.iter().map(row).collect();
    output::table(&["MODEL", "VERSION", "CHANGED", "HOOKS"], &rows)
}

fn row(model: &Value) -> Vec<String> {
    let text = |name: &str| model.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let version = model.get("version").and_then(Value::as_u64).unwrap_or(0);
    let phases = model.get("hooks").and_then(Value::as_object).into_iter().flatten();
    let hooks: Vec<&str> = phases.map(|(phase, _)| phase.as_str()).collect();
    let hooks = if hooks.is_empty() { "none".to_owned() } else { hooks.join(", ") };
    vec![text("id"), version.to_string(), text("updated_at"), hooks]
}

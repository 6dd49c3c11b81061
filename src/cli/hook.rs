//! `snaphook hook`: make, build, try, bind hooks; list and read those of a server.

mod at;
mod build;
mod chain;
mod deploy;
mod history;
mod location;
mod log;
mod new;
mod phase;
mod prepare;
pub(super) mod project;
mod remove;
mod replay;
mod rollback;
mod shown;
mod source;
mod stats;
mod subject;
mod test;
mod test_secrets;
pub(super) mod types;

use clap::Subcommand;
use serde_json::Value;

use self::shown::{artifact, text};
use super::client::path;
use super::failure::Result;
use super::global::Global;
use super::output;
use crate::config::Phase;

/// Create, build, test and bind hooks; list, read and roll back those of a server
#[derive(Debug, Subcommand)]
pub(super) enum HookCommand {
    /// List the hooks of a running server
    List {
        /// Only of this model
        model: Option<String>,
    },
    New(new::New),
    Build(build::Build),
    Test(test::Test),
    #[command(visible_alias = "put")]
    Deploy(deploy::Deploy),
    Log(log::Log),
    Stats(stats::Stats),
    Source(source::Source),
    History(history::History),
    Rollback(rollback::Rollback),
    #[command(visible_alias = "rm")]
    Remove(remove::Remove),
    Types(types::Types),
}

impl HookCommand {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        match self {
            HookCommand::List { model } => list(global, model.as_deref()).await,
            HookCommand::New(new) => new.run(),
            HookCommand::Build(build) => build.run(global).await,
            HookCommand::Test(test) => test.run(global).await,
            HookCommand::Deploy(deploy) => deploy.run(global).await,
            HookCommand::Log(log) => log.run(global).await,
            HookCommand::Stats(stats) => stats.run(global).await,
            HookCommand::Source(source) => source.run(global).await,
            HookCommand::History(history) => history.run(global).await,
            HookCommand::Rollback(rollback) => rollback.run(global).await,
            HookCommand::Remove(remove) => remove.run(global).await,
            HookCommand::Types(types) => types.run(global).await,
        }
    }
}

async fn list(global: &Global, model: Option<&str>) -> Result<()> {
    let client = global.client()?;
    let models: Vec<String> = match model {
        Some(model) => vec![model.to_owned()],
        None => client.models().await?.iter().map(|model| text(model, "id")).collect(),
    };
    let mut rows = Vec::new();
    for model in models {
        let hooks = client.get(&path(&["models", &model, "hooks"])).await?;
        for phase in Phase::ALL {
            for hook in hooks.get(phase.as_str()).and_then(Value::as_array).into_iter().flatten() {
                let size = hook.get("size").and_then(Value::as_u64).unwrap_or(0);
                let columns = ["name", "engine", "mode", "sandbox"].map(|name| text(hook, name));
                let [name, mut engine, mode, sandbox] = columns;
                if !sandbox.is_empty() {
                    let more = hook.get("still_loaded").and_then(Value::as_array).map_or(0, Vec::len);
                    let more = if more > 0 { format!(", {more} more still loaded") } else { String::new() };
                    engine.push_str(&format!(" ({sandbox}{more})"));
                }
                rows.push(vec![
                    format!("{model}.{phase}"),
                    name,
                    engine,
                    mode,
                    size.to_string(),
                    text(hook, "origin"),
                    artifact(hook),
                ]);
            }
        }
    }
    if rows.is_empty() {
        return output::line("no hooks");
    }
    output::table(&["PHASE", "NAME", "ENGINE", "MODE", "BYTES", "ORIGIN", "ARTIFACT"], &rows)
}

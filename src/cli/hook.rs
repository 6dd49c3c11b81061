//! `snaphook hook`: make, build, try, bind and list hooks.

mod build;
mod deploy;
mod new;
mod phase;
mod place;
mod prepare;
pub(super) mod project;
mod replay;
mod shown;
mod test;
pub(super) mod types;

use clap::Subcommand;
use serde_json::Value;

use self::shown::text;
use super::client::path;
use super::failure::Result;
use super::global::Global;
use super::output;
use crate::config::Phase;

/// Make, build, try, bind and list hooks
#[derive(Debug, Subcommand)]
pub(super) enum Hook {
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
    Types(types::Types),
}

impl Hook {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        match self {
            Hook::List { model } => list(global, model.as_deref()).await,
            Hook::New(new) => new.run(),
            Hook::Build(build) => build.run(global).await,
            Hook::Test(test) => test.run(global).await,
            Hook::Deploy(deploy) => deploy.run(global).await,
            Hook::Types(types) => types.run(global).await,
        }
    }
}

async fn list(global: &Global, model: Option<&str>) -> Result<()> {
    let client = global.client()?;
    let models: Vec<String> = match model {
        Some(model) => vec![model.to_owned()],
        None => {
            let page = client.get("/models").await?;
            let items = page.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            items.iter().map(|model| text(model, "id")).collect()
        }
    };
    let mut rows = Vec::new();
    for model in models {
        let hooks = client.get(&path(&["models", &model, "hooks"])).await?;
        for phase in Phase::ALL {
            for hook in hooks.get(phase.as_str()).and_then(Value::as_array).into_iter().flatten() {
                let size = hook.get("size").and_then(Value::as_u64).unwrap_or(0);
                // Twelve digits tell artifacts apart; `GET …/hooks/{phase}` has them all.
                let artifact: String = text(hook, "artifact").chars().take("sha256:".len() + 12).collect();
                let columns = ["name", "engine", "mode", "sandbox"].map(|name| text(hook, name));
                let [name, mut engine, mode, sandbox] = columns;
                if !sandbox.is_empty() {
                    let more = hook.get("still_loaded").and_then(Value::as_array).map_or(0, Vec::len);
                    let more = if more > 0 { format!(", {more} more still loaded") } else { String::new() };
                    engine.push_str(&format!(" ({sandbox}{more})"));
                }
                rows.push(vec![format!("{model}.{phase}"), name, engine, mode, size.to_string(), artifact]);
            }
        }
    }
    if rows.is_empty() {
        return output::line("no hooks");
    }
    output::table(&["PHASE", "NAME", "ENGINE", "MODE", "BYTES", "ARTIFACT"], &rows)
}

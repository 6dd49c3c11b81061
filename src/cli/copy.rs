//! `snaphook copy`: copies everything from the stores of one configuration to those of another.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::backup::{STEPS, refuse_if_served};
use super::failure::{Failure, Result};
use super::global::Global;
use super::output;
use super::rebuild::{show, warn_of};
use crate::config::{Config, Purpose};
use crate::drivers;
use crate::drivers::backup::{BackupError, ComparedModel, Transfer};
use crate::engine::replay::{self, Progress};

/// Copy everything to the empty stores of another configuration
///
/// Copies the log, the recorded errors and the secrets (encrypted), builds the model store from the log, compares both sides
/// and prints a report. No server may use the stores. If the command is interrupted, run it again: it continues where it
/// stopped. The log keeps its positions but is a new log: positions that clients stored are rejected.
///
/// Example: snaphook copy --to new.toml
#[derive(Args, Debug)]
pub(super) struct Copy {
    /// The configuration of the stores to copy to
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl Copy {
    pub(super) async fn run(self, global: &Global) -> Result<()> {
        let from = global.stores_config()?;
        let to = Config::load_with(Some(&self.to), Purpose::Stores, drivers::check)?;
        for config in [&from, &to] {
            refuse_if_served(config).await?;
        }
        let transfer = Transfer::open(&from, &to).await.map_err(failure)?;
        let copied = copy(&transfer).await;
        transfer.close().await;
        let report = copied?;
        report.print(&to)
    }
}

struct Report {
    transferred: drivers::backup::Transferred,
    models: Vec<ComparedModel>,
}

async fn copy(transfer: &Transfer) -> Result<Report> {
    let bar = output::progress_bar("copy");
    bar.set_length(STEPS);
    let transferred = transfer
        .copy(|word, part| {
            bar.set_prefix(word);
            bar.set_position((part * STEPS as f64) as u64);
        })
        .await;
    bar.finish_and_clear();
    let transferred = transferred.map_err(failure)?;

    let ((from_events, from_models), (to_events, to_models)) = (transfer.from(), transfer.to());
    // Work that may remain from the last stop of the server.
    replay::run(from_events, from_models, &Progress::default()).await.map_err(unapplied)?;
    let progress = Arc::new(Progress::default());
    let bar = show(&progress, "models");
    let replayed = replay::run(to_events, to_models, &progress).await;
    bar.finish().await;
    warn_of(&replayed.map_err(unapplied)?.stuck);

    let bar = output::progress_bar("compare");
    let models = transfer
        .compare_models(|model, instances| {
            bar.set_message(format!("`{model}`, {instances} instances"));
            bar.tick();
        })
        .await;
    bar.finish_and_clear();
    Ok(Report { transferred, models: models.map_err(failure)? })
}

impl Report {
    fn print(self, to: &Config) -> Result<()> {
        let Report { transferred, models } = self;
        if transferred.resumed > 0 {
            output::line(format!("an earlier copy had reached position {}", transferred.resumed))?;
        }
        output::line(format!("{}; up to position {}", transferred.counts, transferred.head))?;
        let rows: Vec<_> = models
            .into_iter()
            .map(|ComparedModel { model, version, instances }| vec![model, version.to_string(), instances.to_string()])
            .collect();
        if !rows.is_empty() {
            output::table(&["model", "version", "instances"], &rows)?;
        }
        output::line(format!("the stores of {} contain the same data", to.name()))?;
        if transferred.counts.secrets > 0 {
            output::warn(format!(
                "the secrets need their private key, which is not copied: put it where `{}` expects it before the \
                 start",
                to.private_key
            ));
        }
        Ok(())
    }
}

fn failure(error: BackupError) -> Failure {
    Failure::new(error.to_string())
}

fn unapplied(error: crate::engine::Error) -> Failure {
    Failure::new(format!("the models cannot be built from the log: {error}; run this again"))
}

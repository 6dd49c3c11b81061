//! `snaphook dev`: what an author of hooks runs beside the editor.
//!
//! It compares the folder of hooks with the server whenever a file of it changes, as `snaphook apply` does, and prints
//! every run of every hook. What is wrong with one file keeps no other from being bound, and what takes long keeps no
//! other waiting.

mod pass;
mod paths;
mod projects;
mod runs;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::{mpsc, oneshot};

use super::client::Client;
use super::failure::{Failure, Result};
use super::global::Global;
use super::{identity, output, serve};
use pass::Pass;
use paths::shown;
use projects::Projects;
use runs::LOOK;

/// An editor writes a file in several steps; what happens within this time is one save.
const SETTLE: Duration = Duration::from_millis(30);
/// After a save the server leaves a native library alone until nobody writes to it any more; then it is looked at again.
const LIBRARY_SETTLE: Duration = Duration::from_millis(200);

/// Serve, bind each hook when its file is saved, and print every run
///
/// Connects to the server of the configuration or `--url`, and starts one if none responds. Watches the hooks folder and, at
/// each save, applies it as `snaphook apply` does. Prints each run with its verdict and duration, and the configuration that
/// would grant a denied capability.
///
/// A folder created with `snaphook hook new check --language python --in hooks/order` is built at each save, as with
/// `snaphook hook build`, to the file of its phase.
///
/// Example: snaphook init shop && cd shop && snaphook dev
#[derive(Args, Debug)]
pub(super) struct Dev {
    /// The folder [default: `hooks.directory` of the configuration]
    directory: Option<PathBuf>,
}

impl Dev {
    pub(super) fn run(&self, global: &Global) -> Result<()> {
        let config = global.config()?;
        let directory = self.directory.clone().unwrap_or_else(|| config.hooks.directory.clone());
        if !directory.is_dir() {
            return Err(Failure::new(format!(
                "`{}` is not a folder; `snaphook init` creates a project that has one",
                directory.display()
            )));
        }
        serve::on_all_cores(config.server.workers, async {
            let client = global.client()?;
            match client.get("/models").await {
                Ok(_) => tokio::select! {
                    ended = follow(Arc::new(client), &directory, global) => ended,
                    ended = interrupted() => ended,
                },
                Err(Failure::NoServer(_)) if !client.is_named() => serve_and_follow(config, &directory, global).await,
                Err(error) => Err(error),
            }
        })
    }
}

/// A server of its own, which ends with it.
async fn serve_and_follow(config: crate::config::Config, directory: &Path, global: &Global) -> Result<()> {
    let (sender, ready) = oneshot::channel();
    let server_config = config.clone();
    let mut server =
        tokio::spawn(serve::run(config, serve::Options { ready: Some(sender), folder: Some(directory.to_owned()) }));
    let ended = |result: std::result::Result<Result<()>, tokio::task::JoinError>| {
        result.unwrap_or_else(|error| Err(Failure::new(format!("the server failed: {error}"))))
    };
    let Ok(address) = ready.await else { return ended(server.await) };
    let client = Client::of(&server_config, &address, true)?;
    tokio::select! {
        result = &mut server => ended(result),
        result = follow(Arc::new(client), directory, global) => result,
    }
}

/// Until Ctrl-C.
async fn interrupted() -> Result<()> {
    tokio::signal::ctrl_c().await.map_err(|error| Failure::new(format!("cannot listen for signals: {error}")))
}

/// Goes on until nobody reads the output.
async fn follow(client: Arc<Client>, directory: &Path, global: &Global) -> Result<()> {
    let own = identity::own_data(&client, global)?;
    output::line(identity::check(&client, own.as_deref()).await?)?;
    let (sender, mut changes) = mpsc::channel(1);
    // The watcher first, then the look at the files, so that no change falls between the two.
    let _watcher = watch(directory, sender)?;
    let (connected, first) = oneshot::channel();
    let printing = tokio::spawn(runs::print(Arc::clone(&client), connected));
    // Without it the first runs would be missed.
    let _ = first.await;
    let mut pass = Pass::new(client, directory, own);
    let mut projects = Projects::new(directory, global.config.as_deref());
    pass.run().await?;
    pass.arrivals().await?;
    output::line(format!("watching {}", shown(directory)))?;
    projects.look()?;
    let mut later = None;
    loop {
        let is_cut_off = pass.is_cut_off;
        let mut is_saved = false;
        let retry = async {
            match (later, is_cut_off) {
                (Some(time), _) => tokio::time::sleep_until(time).await,
                (None, true) => tokio::time::sleep(LOOK).await,
                (None, false) => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.recv() => {
                if changed.is_none() {
                    return Err(Failure::new(format!("`{}` can no longer be watched", directory.display())));
                }
                tokio::time::sleep(SETTLE).await;
                while changes.try_recv().is_ok() {}
                projects.look()?;
                is_saved = true;
            }
            () = retry => later = None,
            arrived = pass.arrival() => match arrived? {
                true => {}
                false => continue,
            },
            // What it wrote is a change like any other.
            built = projects.built() => {
                built?;
                continue;
            }
            () = output_closed(&printing) => return Err(Failure::OutputClosed),
        }
        pass.run().await?;
        if is_saved && pass.has_libraries {
            later = Some(tokio::time::Instant::now() + LIBRARY_SETTLE);
        }
    }
}

/// The printing of runs ends only when nobody reads them.
async fn output_closed(printing: &tokio::task::JoinHandle<()>) {
    while !printing.is_finished() {
        tokio::time::sleep(LOOK).await;
    }
}

fn watch(directory: &Path, changes: mpsc::Sender<()>) -> Result<notify::RecommendedWatcher> {
    let failed =
        |error: notify::Error| Failure::new(format!("changes of `{}` cannot be watched: {error}", directory.display()));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let only_read = matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. }));
        if !only_read {
            // Full: a change is announced already.
            let _ = changes.try_send(());
        }
    })
    .map_err(failed)?;
    watcher.watch(directory, RecursiveMode::Recursive).map_err(failed)?;
    Ok(watcher)
}

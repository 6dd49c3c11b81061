//! `snaphook dev`: what an author of hooks runs beside the editor.
//!
//! It compares the folder of hooks with the server whenever a file of it changes, as `snaphook apply` does, and prints
//! every run of every hook. What is wrong with one file keeps no other from being bound.

mod runs;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::{mpsc, oneshot};

use super::apply::{carry_out, states};
use super::client::Client;
use super::{Failure, Global, Result, output, serve};
use crate::catalog::files::{FileError, read_what_is_whole};
use crate::catalog::plan::{Step, plan};

/// An editor writes a file in several steps; what happens within this time is one save.
const SETTLE: Duration = Duration::from_millis(30);
/// How often a server that is gone is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// Serve, bind each hook when its file is saved, and print every run
///
/// Connects to the server that the configuration or `--url` names; starts one if none answers. Watches the folder of
/// hooks and makes the server match it at each save, as `snaphook apply` does. Prints each run with its verdict and its
/// time, and the lines of configuration that would grant what it lacked.
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
                "`{}` is no folder; `snaphook init` makes a project that has one",
                directory.display()
            )));
        }
        serve::on_all_cores(config.server.workers, async {
            let client = global.client()?;
            match client.get("/models").await {
                Ok(_) => tokio::select! {
                    ended = follow(Arc::new(client), &directory) => ended,
                    ended = interrupted() => ended,
                },
                Err(Failure::NoServer(_)) if !client.is_named() => {
                    if let Some(refusal) = config.refusal() {
                        return Err(refusal.into());
                    }
                    serve_and_follow(config, &directory).await
                }
                Err(error) => Err(error),
            }
        })
    }
}

/// A server of its own, which ends with it.
async fn serve_and_follow(config: crate::config::Config, directory: &Path) -> Result<()> {
    let (sender, ready) = oneshot::channel();
    let mount_path = config.server.mount_path.clone();
    let mut server =
        tokio::spawn(serve::run(config, serve::Options { ready: Some(sender), folder: Some(directory.to_owned()) }));
    let ended = |result: std::result::Result<Result<()>, tokio::task::JoinError>| {
        result.unwrap_or_else(|error| Err(Failure::new(format!("the server failed: {error}"))))
    };
    let Ok(address) = ready.await else { return ended(server.await) };
    let client = Client::new(&format!("http://{address}{}", mount_path.trim_end_matches('/')), true)?;
    tokio::select! {
        result = &mut server => ended(result),
        result = follow(Arc::new(client), directory) => result,
    }
}

/// Until Ctrl-C.
async fn interrupted() -> Result<()> {
    tokio::signal::ctrl_c().await.map_err(|error| Failure::new(format!("signals cannot be listened to: {error}")))
}

/// Goes on until nobody reads the output.
async fn follow(client: Arc<Client>, directory: &Path) -> Result<()> {
    let (sender, mut changes) = mpsc::channel(1);
    // The watcher first, then the look at the files, so that no change falls between the two.
    let _watcher = watch(directory, sender)?;
    let (connected, first) = oneshot::channel();
    let printing = tokio::spawn(runs::print(Arc::clone(&client), connected));
    // Without it the first runs would be missed.
    let _ = first.await;
    let mut pass = Pass::default();
    pass.run(&client, directory).await?;
    output::line(format!("watching {}", shown(directory)))?;
    loop {
        let retry = async {
            match pass.is_cut_off {
                true => tokio::time::sleep(LOOK).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.recv() => {
                if changed.is_none() {
                    return Err(Failure::new(format!("`{}` can no longer be watched", directory.display())));
                }
                tokio::time::sleep(SETTLE).await;
                while changes.try_recv().is_ok() {}
            }
            () = retry => {}
            () = output_closed(&printing) => return Err(Failure::OutputClosed),
        }
        pass.run(&client, directory).await?;
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

/// Makes the server match the files, again and again; what was said already is not said twice.
#[derive(Default)]
struct Pass {
    /// What is wrong with the files.
    faults: String,
    /// Of each step that failed: which code or definition, and why.
    failed: HashMap<String, (u64, String)>,
    /// The server did not answer the last time.
    is_cut_off: bool,
}

impl Pass {
    /// An error is one of printing.
    async fn run(&mut self, client: &Client, directory: &Path) -> Result<()> {
        match self.try_run(client, directory).await {
            Err(Failure::OutputClosed) => Err(Failure::OutputClosed),
            Err(error @ (Failure::NoServer(_) | Failure::Broken(_))) => {
                if !std::mem::replace(&mut self.is_cut_off, true) {
                    output::line(error)?;
                }
                Ok(())
            }
            Err(error) => output::line(error),
            Ok(()) => {
                if std::mem::take(&mut self.is_cut_off) {
                    output::line("the server is there again")?;
                }
                Ok(())
            }
        }
    }

    async fn try_run(&mut self, client: &Client, directory: &Path) -> Result<()> {
        let (files, faults) = read_what_is_whole(directory);
        let faults = faults.into_iter().map(|fault| FileError { path: shown(&fault.path).into(), ..fault }.to_string());
        let faults = faults.collect::<Vec<_>>().join("\n");
        if faults != self.faults {
            if !faults.is_empty() {
                output::line(&faults)?;
            }
            self.faults = faults;
        }
        let server = states(client, files.iter().map(|model| model.id.as_str())).await?;
        let artifacts: Vec<&str> = server
            .iter()
            .flat_map(|model| model.hooks.values().flatten())
            .map(|hook| hook.artifact.trim_start_matches("sha256:"))
            .collect();
        let steps = plan(&files, &server);
        self.failed.retain(|step, _| steps.iter().any(|now| now.to_string() == *step));
        for step in &steps {
            let started = Instant::now();
            let name = step.to_string();
            match carry_out(client, step, &artifacts).await {
                Ok(()) => {
                    self.failed.remove(&name);
                    output::line(format!("{step}, {:.0} ms", started.elapsed().as_secs_f64() * 1e3))?;
                }
                Err(error @ (Failure::NoServer(_) | Failure::Broken(_))) => return Err(error),
                Err(error) => {
                    let now = (digest(step), error.to_string());
                    if self.failed.get(&name) != Some(&now) {
                        output::line(format!("{}: {}", place(step, directory, &now.1), now.1))?;
                        self.failed.insert(name, now);
                    }
                }
            }
        }
        Ok(())
    }
}

/// As seen from here.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

fn digest(step: &Step) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{step:?}").hash(&mut hasher);
    hasher.finish()
}

/// The file that a step is about, with line and column if the message names them, so that an editor can jump there.
fn place(step: &Step, directory: &Path, message: &str) -> String {
    let file = match step {
        Step::CreateModel { id, .. } | Step::ChangeModel { id, .. } => directory.join(id).join("model.json"),
        Step::PutHooks { chain, .. } if !chain.is_empty() => chain[0].path.clone(),
        Step::PutHooks { model, .. } | Step::RemoveHooks { model, .. } => directory.join(model),
    };
    let shown = shown(&file);
    let number = |word: &str| {
        let rest = &message[message.find(word)? + word.len()..];
        let digits = rest.find(|char: char| !char.is_ascii_digit()).unwrap_or(rest.len());
        (digits > 0).then(|| &rest[..digits])
    };
    match (number("(line "), number(", column ")) {
        (Some(line), Some(column)) => format!("{shown}:{line}:{column}"),
        (Some(line), None) => format!("{shown}:{line}"),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let step = Step::RemoveHooks { model: "a".to_owned(), phase: crate::config::Phase::PreCreate, names: vec![] };
        let place = |message| place(&step, Path::new("hooks"), message);
        assert_eq!(place("it is wrong (line 3, column 10)"), "hooks/a:3:10");
        assert_eq!(place("it is wrong (line 3)"), "hooks/a:3");
        assert_eq!(place("it is wrong (line x)"), "hooks/a");
    }
}

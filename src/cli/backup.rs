//! `snaphook backup` and `snaphook restore`: write all data that cannot be derived from anything else to one file, and
//! restore it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use super::client::Client;
use super::failure::{Failure, Result};
use super::global::Global;
use super::output;
use crate::config::Config;
use crate::drivers::backup::{self, Counts, Header, Scanner};

/// Steps of a progress bar.
pub(super) const STEPS: u64 = 1000;

/// Back up everything to one file: events, code and progress of hooks, recorded errors, secrets (encrypted)
///
/// Asks the running server, which continues to serve requests; reads the stores directly if no server runs. The backup is a
/// snapshot of one moment. The command succeeds only after it has read the file back and verified it. The backup does not
/// contain the private key of the secrets: keep a copy of the key elsewhere.
///
/// Example: snaphook backup /mnt/shop-2026-01-31.backup
#[derive(Args, Debug)]
pub(super) struct Backup {
    /// The file to write; it must not exist
    file: PathBuf,
}

/// Restore a backup into the empty stores of config.toml
///
/// Fails if a store contains data or a server uses the stores. The command verifies the file before it writes anything, and
/// succeeds only after it has compared the stores with the file. No hook runs, and finished post hooks do not run again. The
/// restored log is a new log: positions that clients stored are rejected.
#[derive(Args, Debug)]
pub(super) struct Restore {
    /// A file written by `snaphook backup`
    file: PathBuf,
}

impl Backup {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        let shown = self.file.display();
        if self.file.exists() {
            return Err(Failure::new(format!("`{shown}` already exists; a backup never replaces a file")));
        }
        let failed = |error: std::io::Error| Failure::new(format!("`{shown}` cannot be written: {error}"));
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Only readable by the owner, and removed if this ends before the file is complete.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let client = global.client()?;
        let bar = output::progress_bar("backup");
        bar.set_length(STEPS);
        let received = match client.post_for_stream("/backup").await {
            Ok(answer) => receive(answer, file.as_file_mut(), &bar).await,
            Err(Failure::NoServer(_)) if !client.is_named() => {
                offline(&global.config()?, file.as_file_mut(), &bar).await
            }
            Err(error) => Err(error),
        };
        bar.finish_and_clear();
        received?;
        file.as_file().sync_all().map_err(failed)?;
        let (header, counts) = check(file.path())?;
        file.persist_noclobber(&self.file).map_err(|error| failed(error.error))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        let size = std::fs::metadata(&self.file).map_err(failed)?.len();
        let mib = size as f64 / f64::from(1 << 20);
        output::line(format!("{shown}: {counts}; up to position {}, {mib:.1} MiB, verified", header.head))?;
        if counts.secrets > 0 {
            output::warn("the private key of the secrets is not in the backup; keep a copy of it elsewhere");
        }
        Ok(())
    }
}

/// Downloads a backup from a server.
async fn receive(mut answer: reqwest::Response, file: &mut File, bar: &ProgressBar) -> Result<()> {
    let mut scanner = Scanner::default();
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => take(file, bar, &mut scanner, &piece)?,
            Ok(None) => return Ok(()),
            Err(error) => return Err(Failure::Broken(format!("the server aborted the backup: {error}"))),
        }
    }
}

/// Makes a backup of stores that no server has open; they report if one has.
async fn offline(config: &Config, file: &mut File, bar: &ProgressBar) -> Result<()> {
    let (sender, mut pieces) = mpsc::channel::<backup::Piece>(2);
    let mut scanner = Scanner::default();
    let write = async {
        while let Some(piece) = pieces.recv().await {
            take(file, bar, &mut scanner, piece.as_ref())?;
        }
        Ok::<(), Failure>(())
    };
    let (exported, written) = tokio::join!(backup::export_stored(config, sender), write);
    written.and(exported.map_err(|error| Failure::new(error.to_string())))
}

fn take(file: &mut File, bar: &ProgressBar, scanner: &mut Scanner, piece: &[u8]) -> Result<()> {
    file.write_all(piece).map_err(|error| Failure::new(format!("the backup cannot be written: {error}")))?;
    scanner.push(piece);
    bar.set_position((scanner.progress() * STEPS as f64) as u64);
    Ok(())
}

/// Reads the whole file back.
fn check(path: &Path) -> Result<(Header, Counts)> {
    let bar = output::progress_bar("check");
    let failed = |error: std::io::Error| Failure::new(format!("the backup cannot be read back: {error}"));
    let file = File::open(path).map_err(failed)?;
    bar.set_length(file.metadata().map_err(failed)?.len());
    let checked = backup::verify(file, |read| bar.set_position(read));
    bar.finish_and_clear();
    checked.map_err(|damage| Failure::new(format!("no backup was created, the received data is damaged: {damage}")))
}

impl Restore {
    pub(super) async fn run(&self, global: &Global) -> Result<()> {
        let config = global.config()?;
        let shown = self.file.display();
        if !self.file.is_file() {
            return Err(Failure::new(format!("`{shown}` is not a file")));
        }
        refuse_if_served(&config).await?;
        let bar = output::progress_bar("restore");
        bar.set_length(STEPS);
        let restored = backup::restore(&self.file, &config, |word, part| {
            bar.set_prefix(word);
            bar.set_position((part * STEPS as f64) as u64);
        })
        .await;
        bar.finish_and_clear();
        let restored = restored.map_err(|error| Failure::new(format!("`{shown}` was not restored: {error}")))?;
        output::line(format!("restored, and compared: {}", restored.counts))?;
        output::line(format!(
            "the log is `{}`, up to position {}; it was `{}`",
            restored.log, restored.header.head, restored.header.log
        ))?;
        if restored.counts.secrets > 0 {
            output::warn(format!(
                "the secrets need their private key, which is not in the backup: put it where `{}` expects it before \
                 the start",
                config.private_key
            ));
        }
        Ok(())
    }
}

/// Fails if the configuration's address responds: a server may be about to open the stores, or may use stores without a
/// lock.
pub(super) async fn refuse_if_served(config: &Config) -> Result<()> {
    let client = Client::of(config, &config.server.mount_address, false)?;
    match client.find("/healthz").await {
        Err(Failure::NoServer(_)) => Ok(()),
        _ => Err(Failure::new(format!("a server runs at {}; stop it first", config.url()))),
    }
}

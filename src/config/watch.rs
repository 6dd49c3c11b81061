//! Reloads the configuration on SIGHUP and when the file changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::error::ConfigErrors;
use super::handle::ConfigHandle;
use super::settings::Config;

/// An editor writes a file in several steps; changes within this time count as one.
const SETTLE: Duration = Duration::from_millis(100);

/// Listens from now on; the returned future reloads the file on each change and runs until it is dropped. `check`
/// validates each new configuration, see [`ConfigHandle::reload`]. Must be called inside a runtime.
pub fn watch<C>(handle: Arc<ConfigHandle>, check: C) -> impl Future<Output = ()> + use<C>
where
    C: Fn(&Config) -> Result<(), ConfigErrors> + Clone + Send + 'static,
{
    let file = handle.load().file.clone();
    // Start the watcher before reading the file, so that no change is missed in between.
    let mut changes = Changes::of(file.as_slice());
    let mut seen = file.as_deref().and_then(|file| std::fs::read(file).ok());
    async move {
        loop {
            let asked = changes.next().await == ChangeCause::Hangup;
            let now = file.as_deref().and_then(|file| std::fs::read(file).ok());
            // The watcher watches the folder, and most changes there do not affect the file. A file that is missing for
            // a moment is about to be replaced.
            if !asked && (now == seen || now.is_none()) {
                continue;
            }
            seen = now;
            // The check may block on files and other programs.
            let (handle, check) = (Arc::clone(&handle), check.clone());
            if let Err(panic) = tokio::task::spawn_blocking(move || report(&handle, check)).await {
                tracing::error!("loading the configuration again failed: {panic}");
            }
        }
    }
}

fn report(handle: &ConfigHandle, check: impl Fn(&Config) -> Result<(), ConfigErrors>) {
    let name = handle.load().name();
    if handle.load().file.is_none() {
        tracing::info!("there is no {name} to reload: Snaphook uses its defaults");
        return;
    }
    match handle.reload(check) {
        Ok(reloaded) => {
            match reloaded.applied.is_empty() {
                true => tracing::info!("{name} reloaded, nothing that takes effect without a restart has changed"),
                false => tracing::info!("{name} reloaded, now in force: {}", reloaded.applied.join(", ")),
            }
            for key in reloaded.restart {
                tracing::warn!("{name}: `{key}` has changed and needs a restart, its previous value stays in force");
            }
        }
        Err(errors) => {
            for line in errors.lines() {
                tracing::error!("{line}");
            }
            tracing::error!("{name} is rejected, the previous configuration stays in force");
        }
    }
}

/// Why files may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeCause {
    /// SIGHUP.
    Hangup,
    /// A change in one of their folders.
    Files,
}

/// SIGHUPs, and changes in the folders of some files.
pub struct Changes {
    hangups: Hangups,
    files: mpsc::Receiver<()>,
    /// Kept alive, because `files` receives nothing without it.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Changes {
    /// Listens from now on. Must be called inside a runtime.
    pub fn of(files: &[PathBuf]) -> Changes {
        let (sender, receiver) = mpsc::channel(1);
        let watcher = if files.is_empty() { None } else { watch_files(files, sender) };
        Changes { hangups: Hangups::new(), files: receiver, _watcher: watcher }
    }

    /// Waits for the next change; simultaneous changes count as one.
    pub async fn next(&mut self) -> ChangeCause {
        tokio::select! {
            () = self.hangups.next() => return ChangeCause::Hangup,
            Some(()) = self.files.recv() => {}
        }
        tokio::time::sleep(SETTLE).await;
        while self.files.try_recv().is_ok() {}
        ChangeCause::Files
    }
}

/// Watches the folder of each file, because an editor replaces the file and a mounted configuration replaces a link
/// beside it; also watches the folder of a link's target.
fn watch_files(files: &[PathBuf], changes: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let names = || files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    let failed =
        |error: notify::Error| tracing::warn!("changes of {} cannot be watched ({error}); send SIGHUP", names());
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let only_read = matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. }));
        if !only_read {
            // If the channel is full, a change is already announced.
            let _ = changes.try_send(());
        }
    })
    .map_err(failed)
    .ok()?;
    let real = files.iter().filter_map(|file| file.canonicalize().ok());
    let folders: BTreeSet<PathBuf> =
        real.chain(files.iter().cloned()).filter_map(|file| file.parent().map(Path::to_owned)).collect();
    for folder in folders {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
            failed(error);
        }
    }
    Some(watcher)
}

/// Receives SIGHUP on systems with signals.
struct Hangups {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangups {
    #[cfg(unix)]
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let signal =
            signal(SignalKind::hangup()).inspect_err(|error| tracing::warn!("cannot listen for SIGHUP: {error}")).ok();
        Hangups { signal }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
        Hangups {}
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "[server]\nmount-address = '127.0.0.1:1337'\n[auth]\nmode = 'open'\n";

    /// Runs the watcher on `file` and lets `change` write until the concurrency is 7.
    async fn follows(file: &Path, change: impl Fn(&str)) {
        let handle = ConfigHandle::new(Config::load(Some(file)).unwrap());
        let mut changed = handle.subscribe();
        let watcher = tokio::spawn(watch(handle.clone(), |_| Ok(())));
        change(&format!("{START}[hooks]\nconcurrency = 7\n"));
        let seen = tokio::time::timeout(Duration::from_secs(20), changed.changed()).await;
        assert!(seen.is_ok(), "no change was seen");
        assert_eq!(handle.load().hooks.concurrency, 7);
        watcher.abort();
    }

    #[tokio::test]
    async fn a_file_that_is_written_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, START).unwrap();
        follows(&file, |text| std::fs::write(&file, text).unwrap()).await;
    }

    #[tokio::test]
    async fn a_file_that_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, START).unwrap();
        follows(&file, |text| {
            std::fs::write(folder.path().join("new"), text).unwrap();
            std::fs::rename(folder.path().join("new"), &file).unwrap();
        })
        .await;
    }

    /// As Kubernetes mounts them: `config.toml -> ..data/config.toml`, and `..data` is a link that is replaced.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_link_beside_the_file_that_is_replaced() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let version = |name: &str, text: &str| {
            std::fs::create_dir_all(root.join(name)).unwrap();
            std::fs::write(root.join(name).join("config.toml"), text).unwrap();
        };
        version("..1", START);
        symlink("..1", root.join("..data")).unwrap();
        symlink("..data/config.toml", root.join("config.toml")).unwrap();
        follows(&root.join("config.toml"), |text| {
            version("..2", text);
            let _ = std::fs::remove_file(root.join("link"));
            symlink("..2", root.join("link")).unwrap();
            std::fs::rename(root.join("link"), root.join("..data")).unwrap();
        })
        .await;
    }
}

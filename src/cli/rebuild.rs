//! `snaphook rebuild`: rebuilds the model store from the event log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::Value;

use super::client::Client;
use super::failure::{Failure, Result};
use super::global::Global;
use super::output;
use crate::drivers::Stores;
use crate::engine::Stuck;
use crate::engine::replay::{self, Progress, Replayed};

/// How often a progress bar is updated.
const LOOK: Duration = Duration::from_millis(100);

pub(super) async fn rebuild(global: &Global) -> Result<()> {
    let client = global.client()?;
    match client.post("/rebuild", None).await {
        Err(Failure::NoServer(_)) if !client.is_named() => offline(global).await,
        Err(error) => Err(error),
        Ok(_) => online(&client).await,
    }
}

/// Follows a rebuild in the server.
pub(super) async fn online(client: &Client) -> Result<()> {
    let bar = output::progress_bar("rebuild");
    let end = loop {
        let progress = client.get("/rebuild").await?;
        let number = |name: &str| progress.get(name).and_then(Value::as_u64).unwrap_or(0);
        draw(&bar, number("position"), number("head"), number("events"));
        match progress.get("state").and_then(Value::as_str) {
            Some("running") => tokio::time::sleep(LOOK).await,
            _ => break progress,
        }
    };
    bar.finish_and_clear();
    let events = end.get("events").and_then(Value::as_u64).unwrap_or(0);
    match (end.get("state").and_then(Value::as_str), end.get("error").and_then(Value::as_str)) {
        (Some("done"), _) => {
            report(events)?;
            let ready = client.find("/readyz").await.ok().flatten().unwrap_or_default();
            let models = ready.get("models").cloned().unwrap_or_default();
            warn_of(&snaphook_driver::json::from_tree::<Vec<Stuck>>(models).unwrap_or_default());
            Ok(())
        }
        (_, Some(error)) => Err(Failure::new(format!("the rebuild failed: {error}"))),
        _ => Err(Failure::new("the rebuild did not end; was the server stopped?")),
    }
}

/// Rebuilds directly on the stores; they report if a server has them open.
async fn offline(global: &Global) -> Result<()> {
    let config = global.config()?;
    let stores = Stores::open(&config).await.map_err(|error| Failure::new(error.to_string()))?;
    let progress = Arc::new(Progress::default());
    let bar = show(&progress, "rebuild");
    let rebuilt = async {
        stores.model.reset(stores.event.identity()).await?;
        replay::run(&stores.event, &stores.model, &progress).await
    }
    .await;
    bar.finish().await;
    stores.close().await;
    match rebuilt {
        Ok(Replayed { stuck, .. }) => {
            report(progress.events.load(Ordering::Relaxed))?;
            warn_of(&stuck);
            Ok(())
        }
        Err(error) => {
            Err(Failure::new(format!("the rebuild failed: {error}; the next start continues from where it stopped")))
        }
    }
}

/// Models that are unavailable although the store was rebuilt.
pub(super) fn warn_of(stuck: &[Stuck]) {
    for Stuck { model, position, reason } in stuck {
        output::warn(format!(
            "model `{model}` is unavailable, its event at {position} cannot be applied: {reason}; `snaphook events inspect \
             {position}` shows it, then delete the model, or skip the event with `snaphook events skip {position} --reason \
             TEXT`"
        ));
    }
}

fn report(events: u64) -> Result<()> {
    output::line(format!("the model store is rebuilt from {events} events"))
}

/// A bar that follows a replay in this process, until it is finished.
pub(super) struct Bar(tokio::task::JoinHandle<()>);

pub(super) fn show(progress: &Arc<Progress>, what: &'static str) -> Bar {
    let progress = Arc::clone(progress);
    Bar(tokio::spawn(async move {
        // A rebuild that ends quickly needs no bar.
        tokio::time::sleep(LOOK * 3).await;
        let bar = Cleared(output::progress_bar(what));
        loop {
            let [position, head, events] =
                [&progress.position, &progress.head, &progress.events].map(|value| value.load(Ordering::Relaxed));
            draw(&bar.0, position, head, events);
            tokio::time::sleep(LOOK).await;
        }
    }))
}

/// Removes its bar from the terminal when it is dropped.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Bar {
    pub(super) async fn finish(self) {
        self.0.abort();
        // Wait until the bar is gone: later output must not mix with it.
        let _ = self.0.await;
    }
}

fn draw(bar: &ProgressBar, position: u64, head: u64, events: u64) {
    bar.set_length(head);
    bar.set_position(position);
    bar.set_message(format!("{events} events"));
}

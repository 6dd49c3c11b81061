//! `snaphook events inspect` and `snaphook events skip`: for events that cannot be applied.

use std::sync::Arc;

use serde_json::{Value, json};
use snaphook_driver::Position;

use super::client::{ClientBody, path};
use super::failure::{Failure, Result};
use super::global::Global;
use super::{output, rebuild};
use crate::drivers::Stores;
use crate::engine::replay::{Progress, Replayed};
use crate::engine::skip::{inspect_offline, skip_offline};

pub(super) async fn inspect(global: &Global, position: Position) -> Result<()> {
    let client = global.client()?;
    let inspected = match client.get(&path(&["events", &position.to_string()])).await {
        Err(Failure::NoServer(_)) if !client.is_named() => {
            let stores = open(global).await?;
            let inspected = inspect_offline(&stores.event, &stores.model, position).await;
            stores.close().await;
            let inspected = inspected.map_err(|error| Failure::new(error.to_string()))?;
            snaphook_driver::json::to_tree(&inspected).map_err(|error| Failure::new(error.to_string()))?
        }
        answer => answer?,
    };
    let text = serde_json::to_string_pretty(&inspected).map_err(|error| Failure::new(error.to_string()))?;
    output::line(text)
}

pub(super) async fn skip(global: &Global, position: Position, reason: &str) -> Result<()> {
    let client = global.client()?;
    let body = ClientBody::json(&json!({ "reason": reason }));
    match client.post(&path(&["events", &position.to_string(), "skip"]), Some(body)).await {
        Err(Failure::NoServer(_)) if !client.is_named() => offline(global, position, reason).await,
        Err(error) => Err(error),
        Ok(skipped) => {
            let by = skipped.get("position").map_or_else(String::new, Value::to_string);
            output::line(format!("the event at {position} is skipped, by the event at {by}"))?;
            rebuild::online(&client).await
        }
    }
}

async fn offline(global: &Global, position: Position, reason: &str) -> Result<()> {
    let stores = open(global).await?;
    let progress = Arc::new(Progress::default());
    let bar = rebuild::show(&progress, "rebuild");
    let replayed = skip_offline(&stores.event, &stores.model, position, reason, &progress).await;
    bar.finish().await;
    stores.close().await;
    let Replayed { stuck, .. } = replayed.map_err(|error| Failure::new(error.to_string()))?;
    output::line(format!("the event at {position} is skipped, and the model store is rebuilt without it"))?;
    rebuild::warn_of(&stuck);
    Ok(())
}

/// Opens the stores; they report if a server has them open.
async fn open(global: &Global) -> Result<Stores> {
    let config = global.config()?;
    Stores::open(&config).await.map_err(|error| Failure::new(error.to_string()))
}

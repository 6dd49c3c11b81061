//! `snaphook hook test --replay`: a pre hook decides again over the last changes of a model.
//!
//! On the log of the running server, over REST like any client; on the stores themselves if none runs.

use async_trait::async_trait;
use serde_json::{Value, json};
use snaphook_driver::{Event, EventKind, Instance, InstancePage, Json, Position};

use super::prepare::prepare;
use crate::catalog::{HookOrigin, Schema, SourceLanguage, query};
use crate::cli::client::{Client, path, with_query};
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::output;
use crate::cli::rebuild::warn_of;
use crate::config::{Config, ConfigHandle};
use crate::drivers::Stores;
use crate::engine::backtest::{self, BacktestVerdict, Cost, Log, NeverWrites, NoArtifacts, Past, Reads, StoredLog};
use crate::engine::replay::{self, Progress, Replayed};
use crate::engine::{FilterInput, FilterValue, list_item};
use crate::hooks::access::{AccessCode, AccessError};
use crate::hooks::engines::{self, Candidate};
use crate::hooks::grants::HookId;
use crate::hooks::host::{Binding, HookHost, Mode};

use std::sync::Arc;

/// What is tried, and on how much.
pub(super) struct Replay<'a> {
    pub(super) engine: &'a str,
    pub(super) code: &'a [u8],
    pub(super) language: Option<SourceLanguage>,
    pub(super) id: HookId,
    pub(super) last: usize,
    pub(super) json: bool,
}

impl Replay<'_> {
    pub(super) async fn run(self, global: &Global) -> Result<()> {
        let config = global.config()?;
        let phase = self.id.phase;
        let kind = backtest::kind_after(phase).ok_or_else(|| {
            Failure::new(format!("`--replay` is for pre hooks, which decide; `{phase}` runs after the change"))
        })?;
        let client = global.client()?;
        let model = self.id.model.clone();
        let found = match client.get(&path(&["models", &model])).await {
            Ok(found) => {
                let schema = schema(&model, &Json::from_value(&found["schema"]))?;
                let log = Arc::new(Remote(client));
                let past = past(&*log, &model, kind, self.last).await?;
                self.decide(&config, log, &schema, past).await?
            }
            Err(Failure::NoServer(_)) if !client.is_named() => {
                check_data(&config)?;
                let stores = Stores::open(&config).await.map_err(|error| Failure::new(error.to_string()))?;
                let found = self.on_stores(&config, stores.clone(), kind).await;
                stores.close().await;
                found?
            }
            Err(error) => return Err(error),
        };
        if self.json { print_json(&found) } else { print(&model, &found) }
    }

    async fn on_stores(
        &self,
        config: &Config,
        stores: Stores,
        kind: EventKind,
    ) -> Result<(Vec<BacktestVerdict>, Cost)> {
        // The model store catches up with the log, as at every start: the hook reads what is so now.
        let replayed = replay::run(&stores.event, &stores.model, &Progress::default()).await;
        let Replayed { models, stuck } = replayed.map_err(|error| Failure::new(error.to_string()))?;
        warn_of(&stuck);
        let log = Arc::new(StoredLog::new(stores, models));
        let model = &self.id.model;
        let record = log.model(model).ok_or_else(|| Failure::new(format!("the log has no model `{model}`")))?;
        let schema = schema(model, &record.record.schema)?;
        let past = past(&*log, model, kind, self.last).await?;
        self.decide(config, log, &schema, past).await
    }

    async fn decide(
        &self,
        config: &Config,
        log: Arc<impl Reads + 'static>,
        schema: &Schema,
        past: Vec<Past>,
    ) -> Result<(Vec<BacktestVerdict>, Cost)> {
        let host = HookHost::new(engines::all(config), ConfigHandle::new(config.clone()).shared());
        host.attach(Arc::new(NeverWrites(log)), Arc::new(NoArtifacts));
        let candidate =
            Candidate { code: self.code, phase: self.id.phase, name: &self.id.name, language: self.language };
        let prepared = prepare(&host, self.engine, candidate).await?;
        let binding = Binding {
            id: self.id.clone(),
            engine: self.engine.to_owned(),
            size: self.code.len() as u64,
            mode: Mode::Enforce,
            position: 1,
            library: None,
            language: self.language,
            as_actor: false,
            origin: HookOrigin::Files,
        };
        let hook = host.bind(binding, Some(prepared));
        Ok(backtest::run(&host, &hook, schema, past).await)
    }
}

/// Refuses to open stores that are not there: to open one is to make it.
fn check_data(config: &Config) -> Result<()> {
    let stores = [&config.secure, &config.event, &config.model, &config.error];
    let paths = stores.into_iter().filter_map(|store| store.settings.get("path").and_then(Value::as_str));
    match paths.map(|path| config.directory.join(path)).find(|path| !path.exists()) {
        None => Ok(()),
        Some(path) => Err(Failure::new(format!(
            "there is nothing to replay: no server responds at {}, and `{}` does not exist; start the server, or name \
             one with `--url`",
            config.url(),
            path.display()
        ))),
    }
}

fn schema(model: &str, text: &Json) -> Result<Schema> {
    Schema::compile_stored(text)
        .map_err(|error| Failure::new(format!("the schema of `{model}` cannot be used: {error}")))
}

async fn past(log: &dyn Log, model: &str, kind: EventKind, last: usize) -> Result<Vec<Past>> {
    backtest::last(log, model, kind, last).await.map_err(Failure::new)
}

fn print(model: &str, (changes, cost): &(Vec<BacktestVerdict>, Cost)) -> Result<()> {
    for change in changes {
        let cause = change.cause.map_or_else(String::new, |cause| format!(" ({cause})"));
        let verdict = match change.verdict {
            "reject" => "would reject",
            "amend" => "would amend",
            _ => "would fail",
        };
        let message = change.message.as_ref().map_or_else(String::new, |message| format!(": {message}"));
        output::line(format!("event {} {model}/{}: {verdict}{cause}{message}", change.position, change.instance))?;
        for field in &change.fields {
            output::line(format!("  {}: {}", field.pointer, field.message))?;
        }
        for difference in &change.differences {
            let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
            output::line(format!(
                "  {}: {}, stored is {}",
                difference.pointer,
                shown(&difference.now),
                shown(&difference.stored)
            ))?;
        }
    }
    let count = |verdict| changes.iter().filter(|change| change.verdict == verdict).count();
    output::line(format!(
        "{} of {} decisions would change: {} rejected, {} amended, {} failed",
        changes.len(),
        cost.runs,
        count("reject"),
        count("amend"),
        count("failed")
    ))?;
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    output::line(format!(
        "cost: p50 {:.2} ms, p99 {:.2} ms, at most {:.1} MiB",
        ms(cost.p50),
        ms(cost.p99),
        cost.memory_bytes_max as f64 / f64::from(1 << 20)
    ))
}

fn print_json((changes, cost): &(Vec<BacktestVerdict>, Cost)) -> Result<()> {
    output::line(json!({ "changes": changes, "cost": cost.to_json() }))
}

/// A running server's log, and what a hook may read there.
struct Remote(Client);

impl Remote {
    async fn find(&self, path: &str) -> std::result::Result<Option<Value>, AccessError> {
        self.0.find(path).await.map_err(|error| AccessError::new(AccessCode::Failed, error.to_string()))
    }
}

#[async_trait]
impl Log for Remote {
    async fn page(&self, model: &str, kind: EventKind, after: Position) -> std::result::Result<Vec<Event>, String> {
        let mut after = after.to_string();
        loop {
            let query = [
                ("model", model.to_owned()),
                ("type", kind.to_string()),
                ("after", after),
                ("limit", "1000".to_owned()),
            ];
            let page = self.0.get(&with_query("/events", &query)).await.map_err(|error| error.to_string())?;
            let events: Vec<Event> = read(page.get("items").cloned().unwrap_or_default())?;
            after = match page.get("next") {
                // Nothing up to there matched.
                Some(next) if events.is_empty() && !next.is_null() => {
                    next.as_str().map_or_else(|| next.to_string(), str::to_owned)
                }
                _ => return Ok(events),
            };
        }
    }

    async fn head(&self) -> std::result::Result<Position, String> {
        let page = self.0.get("/events?limit=1").await.map_err(|error| error.to_string())?;
        page.get("head").and_then(Value::as_u64).ok_or_else(|| "the server's response has no `head`".to_owned())
    }

    async fn before(&self, model: &str, id: &str, position: Position) -> std::result::Result<Option<Json>, String> {
        let then = [("at", position.saturating_sub(1).to_string())];
        let path = with_query(&path(&["models", model, "instances", id]), &then);
        let found = self.0.find(&path).await.map_err(|error| error.to_string())?;
        Ok(found.and_then(|instance| instance.get("data").map(Json::from_value)))
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> std::result::Result<T, String> {
    // Through text: data keeps the digits of its numbers only there.
    snaphook_driver::json::typed(&value.to_string())
        .map_err(|error| format!("the server's response cannot be read: {error}"))
}

#[async_trait]
impl Reads for Remote {
    async fn get(&self, model: &str, id: &str) -> std::result::Result<Option<Instance>, AccessError> {
        let failed = |message| AccessError::new(AccessCode::Failed, message);
        match self.find(&path(&["models", model, "instances", id])).await? {
            Some(found) => Ok(Some(read(found).map_err(failed)?)),
            None if self.find(&path(&["models", model])).await?.is_some() => Ok(None),
            None => {
                Err(AccessError::new(AccessCode::NotFound, format!("there is no model `{}`", model.escape_debug())))
            }
        }
    }

    async fn query(&self, model: &str, text: &str) -> std::result::Result<InstancePage, AccessError> {
        let invalid = |message| AccessError::new(AccessCode::Invalid, message);
        let input = query::from_json(text).map_err(invalid)?;
        let mut keys = Vec::new();
        add_filters(&input.filter, "filter", &mut keys).map_err(invalid)?;
        keys.extend(input.sort.map(|sort| ("sort".to_owned(), sort)));
        keys.extend(input.limit.map(|limit| ("limit".to_owned(), limit.to_string())));
        keys.extend(input.cursor.map(|cursor| ("cursor".to_owned(), cursor)));
        let pairs: Vec<(&str, String)> = keys.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let page = self.0.get(&with_query(&path(&["models", model, "instances"]), &pairs)).await;
        let page = page.map_err(|error| invalid(error.to_string()))?;
        read(page).map_err(|message| AccessError::new(AccessCode::Failed, message))
    }

    async fn event(&self, position: Position) -> std::result::Result<Option<Event>, AccessError> {
        let Some(after) = position.checked_sub(1) else { return Ok(None) };
        let query = [("after", after.to_string()), ("limit", "1".to_owned())];
        let page = self.find(&with_query("/events", &query)).await?.unwrap_or_default();
        let events: Vec<Event> = read(page.get("items").cloned().unwrap_or_default())
            .map_err(|message| AccessError::new(AccessCode::Failed, message))?;
        Ok(events.into_iter().find(|event| event.position == position))
    }

    async fn secret(&self, name: &str) -> std::result::Result<Option<Vec<u8>>, AccessError> {
        let message =
            format!("a running server does not return the value of `{name}`; stop it to test this hook on its stores");
        Err(AccessError::new(AccessCode::Failed, message))
    }
}

/// A filter as parameters of a URL; the error says what a URL cannot say.
fn add_filters(filter: &FilterInput, place: &str, keys: &mut Vec<(String, String)>) -> std::result::Result<(), String> {
    match filter {
        FilterInput::Condition { path, operator, value } => {
            keys.push((format!("{place}[{path}][{operator}]"), value_text(value)));
            Ok(())
        }
        FilterInput::And(parts) => {
            let count = |part: &FilterInput| usize::from(matches!(part, FilterInput::Or(_)));
            if parts.iter().map(count).sum::<usize>() > 1 {
                return Err("a server does not support several `or` side by side; nest them".to_owned());
            }
            parts.iter().try_for_each(|part| add_filters(part, place, keys))
        }
        FilterInput::Or(parts) => parts
            .iter()
            .enumerate()
            .try_for_each(|(number, part)| add_filters(part, &format!("{place}[or][{number}]"), keys)),
        FilterInput::Not(_) => {
            Err("a server does not support `not` in a query; stop it to test this hook on its stores".to_owned())
        }
    }
}

/// A filter's value as it stands in a URL.
fn value_text(value: &FilterValue) -> String {
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        FilterValue::Text(text) => text.clone(),
        FilterValue::Json(Value::Array(values)) => {
            values.iter().map(|value| list_item(&plain(value))).collect::<Vec<_>>().join(",")
        }
        FilterValue::Json(value) => plain(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let text = |value| value_text(&FilterValue::Json(value));
        assert_eq!(text(json!("a,b")), "a,b");
        assert_eq!(text(json!([1, "x", true])), "1,x,true");
        assert_eq!(text(json!(["a,b", "c\\"])), r"a\,b,c\\");
    }
}

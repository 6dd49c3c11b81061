//! `snaphook hook test`: runs a hook here, in the real engine, without a server.
//!
//! What it may do is what the configuration grants it, against stores in memory that hold the models kept as files
//! and nothing else. The data is checked against the model's schema first, with its defaults filled in, as a server does it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use snaphook_driver::{Json, time};

use super::location::{HookLocation, read};
use super::prepare::prepare;
use super::replay::Replay;
use super::subject::{Subject, with_configuration};
use super::test_secrets::{self, TestSecret, test_secret};
use crate::catalog::files::{ModelFiles, read_directory};
use crate::catalog::{Effort, HookOrigin, SourceLanguage, Unfit};
use crate::cli::failure::{Failure, Result};
use crate::cli::global::Global;
use crate::cli::output;
use crate::config::{Config, ConfigHandle, DriverConfig, Phase};
use crate::drivers::Stores;
use crate::engine::command::Origin;
use crate::engine::{Engine, replay};
use crate::hooks::context::{Asked, Context, EventRef, Outcome, Run};
use crate::hooks::engines::{self, Candidate, TopLevel};
use crate::hooks::grants::HookId;
use crate::hooks::host::{Binding, HookHost, Mode, NOT_SANDBOXED};

/// Run a hook locally, in the real sandbox, without a server
///
/// Without a file, in a folder created with `snaphook hook new`, it builds the hook and runs it on `test/data.json`.
///
/// Prints the verdict, the log, time and memory, and each capability that the hook used. The hook has the grants of
/// config.toml, on in-memory stores with the models of the hooks folder and no instances. As on a server, invalid data is
/// rejected and defaults are filled in. Requests are really sent, and programs really run. A native library has no sandbox
/// and runs in this process.
///
/// With --replay the hook runs on changes that were accepted before, and the verdicts that would differ are listed. Example:
/// snaphook hook test hooks/movie/preCreate.ts --replay --last 1000
///
/// Example: snaphook hook test hooks/movie/preCreate.ts --after film.json
#[derive(Args, Debug)]
pub(in crate::cli) struct Test {
    /// JavaScript, TypeScript, a WebAssembly component, a native library, or a hook's folder
    #[arg(default_value = ".")]
    source: PathBuf,
    #[command(flatten)]
    place: HookLocation,
    /// The name of the hook, to which grants may refer [default: from `hook.toml`, else the phase]
    #[arg(long)]
    name: Option<String>,
    /// File with the instance's data before the change (update and delete) [default: the folder's `test/data.json`]
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// File with the instance's data after the change (create and update) [default: the folder's `test/data.json`]
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    /// Run the hook on changes in the log, and list the verdicts that would differ
    ///
    /// Uses the log of the running server, or the stores if no server runs. The hook reads the current data with the grants
    /// of the configuration; nothing is written.
    #[arg(long, conflicts_with_all = ["before", "after", "id"])]
    replay: bool,
    /// With --replay: the number of latest changes
    #[arg(long, value_name = "COUNT", default_value = "1000", requires = "replay")]
    last: usize,
    /// The instance's id
    #[arg(long, default_value = "test")]
    id: String,
    /// A secret for the hook to find; may be repeated
    ///
    /// The server's own secrets are not available.
    #[arg(long = "secret", value_name = "NAME=VALUE", value_parser = test_secret, conflicts_with = "replay")]
    secrets: Vec<TestSecret>,
    /// Print everything as one JSON document
    #[arg(long)]
    json: bool,
}

impl Test {
    pub(in crate::cli) async fn run(&self, global: &Global) -> Result<()> {
        let global = &with_configuration(global, &self.source);
        let config = global.config()?;
        let subject = Subject::of(&self.source, &self.place, self.name.as_deref(), global).await?;
        let (engine, code, language) = read(&subject.file, &self.place)?;
        let id = HookId {
            model: subject.model.clone().unwrap_or_else(|| "test".to_owned()),
            phase: subject.phase,
            name: subject.name.clone(),
            artifact: artifact(&code),
        };
        if self.replay {
            if subject.model.is_none() {
                return Err(Failure::new("name the model with `--model`"));
            }
            let replay = Replay { engine: &engine, code: &code, language, id, last: self.last, json: self.json };
            return replay.run(global).await;
        }
        let context = self.context(&id, subject.sample.as_deref())?;
        let folder = tempfile::tempdir().map_err(|error| Failure::new(format!("no temporary folder: {error}")))?;
        let (engine_in_memory, host) = open(&config, subject.models.as_deref(), folder.path(), &self.secrets).await?;
        let run = match fitted(&engine_in_memory, context).await {
            Ok(context) => run_once(&host, &engine, (&code, language), id, &context).await,
            Err(error) => Err(error),
        };
        let sandbox = host.code.is_native(&engine).then_some(NOT_SANDBOXED);
        engine_in_memory.close(Duration::ZERO).await;
        let (run, top_level) = run?;
        test_secrets::warn_of_missing(&run.asked, &self.secrets);
        if self.json {
            print_json(&run, top_level.as_ref(), sandbox)?
        } else {
            print(&run, top_level.as_ref(), sandbox)?
        }
        match run.outcome {
            // The decision is printed; it is no fault of the run.
            Outcome::Accept | Outcome::Amend(_) | Outcome::Reject(_) => Ok(()),
            Outcome::Failed(_) => Err(Failure::new("the hook failed")),
        }
    }

    fn context(&self, id: &HookId, sample: Option<&Path>) -> Result<Context> {
        let phase = id.phase;
        let wants_before = !matches!(phase, Phase::PreCreate | Phase::PostCreate);
        let wants_after = !matches!(phase, Phase::PreDelete | Phase::PostDelete);
        Ok(Context {
            phase,
            model: id.model.clone(),
            model_version: 1,
            instance: self.id.clone(),
            before: data(phase, "--before", self.before.as_deref(), sample, wants_before)?,
            after: data(phase, "--after", self.after.as_deref(), sample, wants_after)?,
            actor: None,
            request_id: None,
            time: time::now(),
            event: (!phase.is_pre()).then(|| EventRef { position: 1, id: "test".to_owned(), record: None }),
            attempt: 1,
            depth: 0,
            ahead: None,
        })
    }
}

fn artifact(code: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    format!("sha256:{:x}", Sha256::digest(code))
}

fn data(phase: Phase, option: &str, file: Option<&Path>, sample: Option<&Path>, wanted: bool) -> Result<Option<Json>> {
    match file.or(sample.filter(|_| wanted)) {
        None if wanted => Err(Failure::new(format!("`{phase}` needs `{option}`, a file with the instance's data"))),
        Some(_) if !wanted => Err(Failure::new(format!("`{phase}` has no data for `{option}`"))),
        None => Ok(None),
        Some(file) => {
            let name = file.display();
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::new(format!("`{name}` cannot be read: {error}")))?;
            match snaphook_driver::json::parse(&text) {
                Ok(Value::Object(_)) => Ok(Some(Json::trusted(text))),
                Ok(_) => {
                    Err(Failure::new(format!("`{name}` does not contain an object, expected the instance's data")))
                }
                Err(error) => Err(Failure::new(format!("`{name}` is not valid JSON: {error}"))),
            }
        }
    }
}

/// The change as a server would put it before the hook: with the defaults of the model's schema, which the data must fit.
async fn fitted(engine: &Engine, context: Context) -> Result<Context> {
    // A model that is not kept as a file is not known here.
    let Ok(model) = engine.definitions.get(&context.model) else { return Ok(context) };
    let context = Context { model_version: model.record.version, ..context };
    let Some(after) = &context.after else { return Ok(context) };
    let mut data = after.to_value().map_err(|error| Failure::new(format!("the data is not valid JSON: {error}")))?;
    let fit = move |effort: &Effort| {
        let is_changed = model.schema.fill_defaults(&mut data, effort)?;
        model.schema.check(&data, "", effort)?;
        Ok::<_, Unfit>(is_changed.then(|| Json::from_value(&data)))
    };
    let fit = engine.definitions.in_turn(fit).await.map_err(|error| Failure::new(error.to_string()))?;
    match fit {
        Ok(None) => Ok(context),
        Ok(filled) => Ok(Context { after: filled, ..context }),
        Err(Unfit::Errors(rows)) => {
            let rows: Vec<String> = rows.iter().map(|row| format!("\n  {}: {}", row.pointer, row.message)).collect();
            let model = &context.model;
            Err(Failure::new(format!(
                "the data does not fit the model `{model}`, so a server rejects it before the hook runs:{}",
                rows.concat()
            )))
        }
        Err(Unfit::TooComplex(message)) => Err(Failure::new(message)),
        Err(Unfit::Late) => Err(Failure::new("checking the data took too long")),
    }
}

/// An engine on stores in memory, with the models that are kept as files, and the host that runs the hook. `models`: where those
/// are, if the hook's place says so.
async fn open(
    config: &Config,
    models: Option<&Path>,
    folder: &Path,
    secrets: &[TestSecret],
) -> Result<(Arc<Engine>, Arc<HookHost>)> {
    let memory = DriverConfig::default;
    let in_memory = Config {
        // Only the private key is written below it.
        directory: folder.to_owned(),
        private_key: "file:secret.key".to_owned(),
        secure: memory(),
        event: memory(),
        model: memory(),
        error: memory(),
        ..config.clone()
    };
    let failed = |error: &dyn std::fmt::Display| Failure::new(error.to_string());
    let stores = Stores::open(&in_memory).await.map_err(|error| failed(&error))?;
    test_secrets::store(&stores.vault, secrets).await?;
    let handle = ConfigHandle::new(in_memory);
    let host = Arc::new(HookHost::new(engines::all(config), handle.shared()));
    let progress = replay::Progress::default();
    let engine = Engine::open(handle, stores, Arc::clone(&host), &progress).await.map_err(|error| failed(&error))?;
    // Without their hooks: this is about one.
    let directory = models.unwrap_or(&config.hooks.directory);
    let files = read_directory(directory).unwrap_or_default();
    let models: Vec<_> = files.into_iter().map(|model| ModelFiles { phases: Vec::new(), ..model }).collect();
    if let Err(error) = engine.definitions.apply_files(&models, &Origin::default()).await {
        tracing::warn!("the models of `{}` are not available to the test: {error}", directory.display());
    }
    Ok((engine, host))
}

async fn run_once(
    host: &HookHost,
    engine: &str,
    (code, language): (&[u8], Option<SourceLanguage>),
    id: HookId,
    context: &Context,
) -> Result<(Run, Option<TopLevel>)> {
    let prepared = prepare(host, engine, Candidate { code, phase: id.phase, name: &id.name, language }).await?;
    let top_level = prepared.top_level();
    let size = code.len() as u64;
    let binding = Binding {
        id,
        engine: engine.to_owned(),
        size,
        mode: Mode::Enforce,
        position: 1,
        library: None,
        language,
        as_actor: false,
        origin: HookOrigin::Files,
    };
    let hook = host.bind(binding, Some(prepared));
    Ok((host.runs.run(&hook, context).await, top_level))
}

fn print(run: &Run, top_level: Option<&TopLevel>, sandbox: Option<&str>) -> Result<()> {
    match &run.outcome {
        Outcome::Accept => output::line("verdict: accept")?,
        Outcome::Amend(data) => {
            let pretty = data.to_value().ok().and_then(|value| serde_json::to_string_pretty(&value).ok());
            output::line(format!("verdict: amend\n{}", pretty.unwrap_or_else(|| data.to_string())))?;
        }
        Outcome::Reject(rejection) => {
            output::line(format!("verdict: reject: {}", rejection.message))?;
            rejection.fields.iter().try_for_each(|row| output::line(format!("  {}: {}", row.pointer, row.message)))?;
        }
        Outcome::Failed(failure) => {
            output::line(format!("failed ({}): {}", failure.cause.as_str(), failure.message))?;
        }
    }
    for line in &run.log {
        let level = format!("{:?}", line.level).to_lowercase();
        output::line(format!("log: {level}: {}", line.message))?;
    }
    for asked in &run.asked {
        output::line(asked_text(asked))?;
    }
    if let Some(top_level) = top_level {
        output::line(format!("top level: {top_level}"))?;
    }
    let millis = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1e3);
    output::line(format!("time: {}, of it {} in the host", millis(run.wall), millis(run.host)))?;
    match sandbox {
        // What it takes is the process's own and cannot be told apart.
        Some(sandbox) => output::line(format!("sandbox: {sandbox}, native code can do whatever the server can")),
        None => output::line(format!("memory: {:.1} MiB", run.memory_bytes as f64 / f64::from(1 << 20))),
    }
}

fn asked_text(asked: &Asked) -> String {
    let answer = if asked.granted { "granted" } else { "denied" };
    match asked.target.is_empty() {
        true => format!("asked for {}: {answer}", asked.capability),
        false => format!("asked for {} `{}`: {answer}", asked.capability, asked.target),
    }
}

fn print_json(run: &Run, top_level: Option<&TopLevel>, sandbox: Option<&str>) -> Result<()> {
    let mut document = Map::new();
    let verdict = match &run.outcome {
        Outcome::Accept => "accept",
        Outcome::Amend(data) => {
            document.insert("data".to_owned(), data.to_value().unwrap_or_default());
            "amend"
        }
        Outcome::Reject(rejection) => {
            document.insert("message".to_owned(), json!(rejection.message));
            document.insert("fields".to_owned(), json!(rejection.fields));
            "reject"
        }
        Outcome::Failed(failure) => {
            document.insert("cause".to_owned(), json!(failure.cause.as_str()));
            document.insert("message".to_owned(), json!(failure.message));
            "failed"
        }
    };
    document.insert("verdict".to_owned(), json!(verdict));
    document.insert("log".to_owned(), json!(run.log));
    document.insert("asked".to_owned(), json!(run.asked));
    document.insert("wall_ms".to_owned(), json!(run.wall.as_secs_f64() * 1e3));
    document.insert("host_ms".to_owned(), json!(run.host.as_secs_f64() * 1e3));
    document.insert("memory_bytes".to_owned(), json!(run.memory_bytes));
    if let Some(top_level) = top_level {
        document.insert("top_level".to_owned(), json!(top_level.as_str()));
        document.insert("top_level_reason".to_owned(), json!(top_level.reason()));
    }
    if let Some(sandbox) = sandbox {
        document.insert("sandbox".to_owned(), json!(sandbox));
    }
    output::line(Value::Object(document))
}

//! The commit path, the dispatcher, rebuild and publishing: the only place that knows the order of steps.
//!
//! The engine does no HTTP and does not know which drivers or hook engines exist.

pub mod command;
mod error;
pub mod input;

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use futures::stream::BoxStream;
use serde_json::Value;
use snaphook_driver::{
    ErrorQuery, ErrorRecord, Event, EventPage, EventQuery, Instance, InstancePage, Position, time::Millis,
};

pub use crate::catalog::query::{FilterValue, QueryInput};
use crate::catalog::{HookRecord, Model, ModelRecord};
use crate::config::Phase;
use crate::hooks::context::LogLine;
use command::{
    BindingInput, Change, HookInfo, Imported, ModelInput, Origin, Precondition, RebuildProgress, WriteOptions, Written,
};
pub use error::{Error, ErrorKind, Result};

/// One server's engine. Cheap to share behind an `Arc`.
pub struct Engine {}

/// A point in the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Position(Position),
    Time(Millis),
}

#[allow(unused_variables)]
impl Engine {
    /// Every model, by id.
    pub fn models(&self) -> Vec<Arc<Model>> {
        unimplemented!()
    }
    /// `not-found` if there is none.
    pub fn model(&self, id: &str) -> Result<Arc<Model>> {
        unimplemented!()
    }
    /// An older version, from the log.
    pub async fn model_version(&self, id: &str, version: u64) -> Result<ModelRecord> {
        unimplemented!()
    }
    pub async fn create_model(
        &self,
        id: &str,
        input: ModelInput,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Arc<Model>> {
        unimplemented!()
    }
    pub async fn update_model(
        &self,
        id: &str,
        input: ModelInput,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Arc<Model>> {
        unimplemented!()
    }
    pub async fn delete_model(
        &self,
        id: &str,
        cascade: bool,
        precondition: &Precondition,
        origin: &Origin,
    ) -> Result<()> {
        unimplemented!()
    }

    pub fn hook_infos(&self, model: &Model, phase: Phase) -> Vec<HookInfo> {
        unimplemented!()
    }
    pub async fn put_hooks(
        &self,
        model: &str,
        phase: Phase,
        chain: Vec<BindingInput>,
        precondition: &Precondition,
        origin: &Origin,
    ) -> Result<Vec<HookInfo>> {
        unimplemented!()
    }
    pub async fn delete_hooks(
        &self,
        model: &str,
        phase: Phase,
        precondition: &Precondition,
        origin: &Origin,
    ) -> Result<()> {
        unimplemented!()
    }
    /// The code of a chain of one.
    pub async fn hook_artifact(&self, model: &str, phase: Phase) -> Result<(HookRecord, Vec<u8>)> {
        unimplemented!()
    }
    /// The last 200 log lines of a phase's runs, each with the hook's name.
    pub fn hook_log(&self, model: &str, phase: Phase) -> Result<Vec<(String, LogLine)>> {
        unimplemented!()
    }
    /// Log lines from now on.
    pub fn follow_hook_log(&self, model: &str, phase: Phase) -> Result<BoxStream<'static, (String, LogLine)>> {
        unimplemented!()
    }
    /// One object per hook of the phase.
    pub fn hook_stats(&self, model: &str, phase: Phase) -> Result<Vec<Value>> {
        unimplemented!()
    }

    pub async fn write(&self, model: &str, change: Change, options: &WriteOptions, origin: &Origin) -> Result<Written> {
        unimplemented!()
    }
    /// Each line is what `POST …/instances` takes; events come in the order of the lines. A line that is not UTF-8,
    /// too long or broken is one failure; an `Err` of the stream ends the import with that error.
    pub async fn import(
        &self,
        model: &str,
        lines: impl Stream<Item = Result<bytes::Bytes>> + Send,
        options: &WriteOptions,
        origin: &Origin,
    ) -> Result<Imported> {
        unimplemented!()
    }
    pub async fn get(&self, model: &str, id: &str) -> Result<Instance> {
        unimplemented!()
    }
    pub async fn get_at(&self, model: &str, id: &str, at: At) -> Result<Instance> {
        unimplemented!()
    }
    pub async fn query(&self, model: &str, input: &QueryInput) -> Result<InstancePage> {
        unimplemented!()
    }
    pub async fn count(&self, model: &str, input: &QueryInput) -> Result<u64> {
        unimplemented!()
    }

    /// Events of the log, oldest first.
    pub async fn events(&self, query: &EventQuery) -> Result<EventPage> {
        unimplemented!()
    }
    /// Position of the last event.
    pub fn head(&self) -> Position {
        unimplemented!()
    }
    /// Every matching event after a position, then live ones, none missed and none twice. Ends when the listener
    /// falls too far behind or the server stops.
    pub fn follow(&self, query: EventQuery) -> BoxStream<'static, Result<Arc<Event>>> {
        unimplemented!()
    }

    pub async fn errors(&self, query: &ErrorQuery) -> Result<Vec<ErrorRecord>> {
        unimplemented!()
    }
    pub async fn error(&self, id: &str) -> Result<ErrorRecord> {
        unimplemented!()
    }
    pub async fn drop_error(&self, id: &str) -> Result<()> {
        unimplemented!()
    }
    /// Runs the hook again, as it is now: `true` and the record is gone, or `false` and the record is renewed.
    pub async fn retry_error(&self, id: &str) -> Result<bool> {
        unimplemented!()
    }
    /// All that match (`limit` is ignored): matched, succeeded. With `dry_run` only counts.
    pub async fn retry_errors(&self, query: &ErrorQuery, dry_run: bool) -> Result<(u64, u64)> {
        unimplemented!()
    }

    pub async fn put_secret(&self, name: &str, value: &[u8]) -> Result<()> {
        unimplemented!()
    }
    pub async fn secrets(&self) -> Result<Vec<String>> {
        unimplemented!()
    }
    pub async fn delete_secret(&self, name: &str) -> Result<()> {
        unimplemented!()
    }

    /// Starts a rebuild of the model store; `conflict` if one runs.
    pub async fn start_rebuild(self: &Arc<Self>) -> Result<()> {
        unimplemented!()
    }
    pub fn rebuild_progress(&self) -> RebuildProgress {
        unimplemented!()
    }

    /// Whether every store answers; the names of those that do not, with the reason.
    pub async fn ready(&self) -> std::result::Result<(), Vec<(String, String)>> {
        unimplemented!()
    }
    /// Prometheus text.
    pub fn metrics(&self) -> String {
        unimplemented!()
    }
    /// Finishes what runs, within the time; then closes the stores.
    pub async fn close(&self, within: Duration) {
        unimplemented!()
    }
}

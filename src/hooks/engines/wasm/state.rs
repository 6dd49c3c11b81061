//! The host's state of a sandbox, and the only way from the guest to a capability.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::ResourceTable;
use wasmtime::{Store, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::config::Runtime;
use super::limiter::Limiter;
use super::pipe::AnswerPipe;
use super::stdio::{LogLines, LogPipe, Stream};
use crate::config::Limits;
use crate::hooks::access::AccessError;
use crate::hooks::context::{Failure, FailureCause, LogLevel};
use crate::hooks::engines::clock::Clock;
use crate::hooks::engines::limits::{Broken, COPIED_BYTES_MAX, memory_failure};
use crate::hooks::session::{HOST_CALLS_MAX, HostError, Session};

/// How many WASI resources (streams, pollables) a guest may hold at once: they use the host's memory, which does not
/// count toward the guest's limit.
const HANDLES_MAX: usize = 1_000;

/// The same for the component model (futures, tasks). These are smaller, and each wait for a timer leaves some until
/// the call ends, so there is room for as many as a call can create.
const CONCURRENT_HANDLES_MAX: usize = 5 * HOST_CALLS_MAX as usize + HANDLES_MAX;

/// Data of one store. `X` is what the engine adds.
pub(in crate::hooks::engines) struct SandboxState<X> {
    pub(in crate::hooks::engines) extra: X,
    session: Option<Arc<Session>>,
    clock: Option<Arc<Clock>>,
    limiter: Limiter,
    log: Arc<LogLines>,
    /// For commands only; others write nothing here.
    answer: AnswerPipe,
    /// For a command: its standard input.
    input: Option<Bytes>,
    /// Created on first use: JavaScript never uses it.
    wasi: Option<WasiCtx>,
    table: ResourceTable,
}

impl<X> WasiView for SandboxState<X>
where
    X: Send,
{
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| wasi(&self.log, &self.answer, self.input.take()));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

/// No files, no environment, no arguments, no network. Standard output is the log; a command reads `input` and writes
/// its answer to standard output.
fn wasi(log: &Arc<LogLines>, answer: &AnswerPipe, input: Option<Bytes>) -> WasiCtx {
    let mut wasi = WasiCtxBuilder::new();
    wasi.allow_tcp(false).allow_udp(false);
    let pipe = |stream, level| LogPipe::new(Arc::clone(log), stream, level);
    match input {
        None => wasi.stdout(pipe(Stream::Output, LogLevel::Info)).stderr(pipe(Stream::Error, LogLevel::Warn)),
        Some(input) => {
            wasi.stdin(MemoryInputPipe::new(input)).stdout(answer.clone()).stderr(pipe(Stream::Error, LogLevel::Info))
        }
    };
    wasi.build()
}

/// An empty store. `input` is for a command.
pub(super) fn new_store<X: Send + 'static>(
    runtime: &Runtime,
    extra: X,
    input: Option<Bytes>,
) -> Store<SandboxState<X>> {
    let (log, answer) = (Arc::default(), AnswerPipe::default());
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES_MAX);
    let state = SandboxState {
        extra,
        session: None,
        clock: None,
        limiter: Limiter::default(),
        log,
        answer,
        input,
        wasi: None,
        table,
    };
    let mut store = Store::new(&runtime.engine, state);
    store.set_hostcall_fuel(COPIED_BYTES_MAX);
    if let Some(table) = store.concurrent_resource_table() {
        table.set_max_capacity(CONCURRENT_HANDLES_MAX);
    }
    store.limiter(|state| &mut state.limiter);
    store.epoch_deadline_callback(|store: StoreContextMut<'_, SandboxState<X>>| {
        if let Some(clock) = &store.data().clock {
            clock.left().map_err(wasmtime::Error::new)?;
        }
        // A running guest yields its thread at every tick.
        Ok(UpdateDeadline::Yield(1))
    });
    store
}

impl<X> SandboxState<X> {
    /// Prepares a store for one call. `session` is `None` while code is only checked; every host call then fails.
    pub(super) fn begin(&mut self, session: Option<Arc<Session>>, limits: &Limits) -> Arc<Clock> {
        let clock = Arc::new(Clock::start(limits.timeout, session.clone()));
        self.limiter.begin(limits.memory_bytes, session.as_ref().map(|session| Arc::clone(session.memory())));
        self.log.begin(session.clone());
        self.session = session;
        self.clock = Some(clock.clone());
        clock
    }

    /// Ends the call: the state in an idle sandbox must not keep a session alive.
    pub(super) fn end(&mut self) {
        self.log.end();
        self.session = None;
        self.clock = None;
    }

    /// Peak size in bytes during this call.
    pub(in crate::hooks::engines) const fn memory_peak(&self) -> usize {
        self.limiter.peak()
    }

    /// Current size in bytes.
    pub(super) const fn memory_used(&self) -> usize {
        self.limiter.used()
    }

    /// A failure, if the sandbox was refused memory during this call.
    pub(in crate::hooks::engines) fn memory_failure(&self) -> Option<Failure> {
        let wanted = self.limiter.refused()?;
        Some(memory_failure(self.limiter.limit(), Some((wanted, self.limiter.used() + self.limiter.host()))))
    }

    /// Takes a command's standard output.
    pub(in crate::hooks::engines) fn take_answer(&self) -> Vec<u8> {
        self.answer.take()
    }

    /// What was written last to standard error, or to the log as an error.
    pub(in crate::hooks::engines) fn last_words(&self) -> String {
        self.log.last_words()
    }

    /// Writes a line to the hook's log; an error stops the guest.
    pub(in crate::hooks::engines) fn write_log(&self, level: LogLevel, message: String) -> wasmtime::Result<()> {
        let session = self.session()?;
        if level == LogLevel::Error {
            self.log.said(&message);
        }
        session.log(level, message).map_err(fatal)
    }

    fn session(&self) -> wasmtime::Result<&Arc<Session>> {
        self.session.as_ref().ok_or_else(|| {
            wasmtime::Error::new(Broken(Failure {
                cause: FailureCause::Load,
                message: "asked for a capability while it was loaded; that is only possible inside the handler".into(),
                limit: None,
            }))
        })
    }

    /// The limit of this call.
    pub(super) const fn memory_limit(&self) -> usize {
        self.limiter.limit()
    }

    /// The call's session; `None` while code is only checked.
    pub(in crate::hooks::engines) fn session_if_any(&self) -> Option<Arc<Session>> {
        self.session.clone()
    }

    /// The call's clock; `None` between calls.
    pub(in crate::hooks::engines) fn clock(&self) -> Option<Arc<Clock>> {
        self.clock.clone()
    }

    /// Access for resources that WASI keeps in the table on behalf of an engine.
    pub(in crate::hooks::engines) const fn extra_and_table(&mut self) -> (&mut X, &mut ResourceTable) {
        (&mut self.extra, &mut self.table)
    }

    /// The session, for waits that count as the guest's time.
    pub(in crate::hooks::engines) fn session_for_sleep(&self) -> wasmtime::Result<Arc<Session>> {
        self.session().cloned()
    }
}

/// Runs one host call. An exceeded limit stops the guest; the session measures the time.
///
/// The future does not borrow the state, which cannot be shared between threads.
pub(in crate::hooks::engines) fn capability<X, T, C>(
    state: &SandboxState<X>,
    call: C,
) -> impl Future<Output = wasmtime::Result<Result<T, AccessError>>> + use<X, T, C>
where
    C: AsyncFnOnce(Arc<Session>) -> Result<T, HostError>,
{
    let session = state.session().cloned();
    async move {
        match call(session?).await {
            Ok(value) => Ok(Ok(value)),
            Err(HostError::Access(error)) => Ok(Err(error)),
            Err(error) => Err(fatal(error)),
        }
    }
}

/// Converts an exceeded limit to the error that stops the guest.
pub(in crate::hooks::engines) fn fatal(error: HostError) -> wasmtime::Error {
    wasmtime::Error::new(Broken::from(error))
}

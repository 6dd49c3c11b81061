//! Loads a hook when it is bound: its source is compiled, and its top level run where nobody can see the difference.
//!
//! A top level that asked for something another call would get differently (time, random numbers, the log, a timer, the host), or
//! that left a promise open, runs at each call. Of the others a call starts from what the top level left.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use super::delta::Delta;
use super::guest::Guest;
use super::host::{Extra, Mode, Observed};
use super::runner::Runner;
use crate::hooks::engines::javascript::{Source, compile_error};
use crate::hooks::engines::limits::CHECK_LIMITS;
use crate::hooks::engines::wasm::{self, Sandbox};
use crate::hooks::engines::{PrepareError, TopLevel};

/// What a top level may leave to be copied for each call; what leaves more runs at each call.
const CAPTURED_BYTES_MAX: usize = 4 << 20;

/// What `prepare` of the module gives.
const PREPARED: u32 = 0;
const PREPARED_THROWS: u32 = 1;

/// A hook that is loaded.
pub(super) struct Loaded {
    pub(super) delta: Delta,
    pub(super) top_level: TopLevel,
    /// How long the top level ran when the hook was bound.
    pub(super) top_level_time: Duration,
}

/// Compiles the source, and captures its top level if it may be.
pub(super) async fn load(runner: &'static Runner, source: &Source) -> Result<Loaded, PrepareError> {
    let text = source.text.clone();
    let compiled = in_sandbox(runner, move |sandbox| {
        Box::pin(async move {
            let guest = Guest::new(&runner.loading_code, &mut sandbox.store).await?;
            guest.compile(&mut sandbox.store, &text).await
        })
    });
    let bytecode = compiled.await?.map_err(|error| {
        let (message, place) = compile_error(&error);
        let position = place.and_then(|(line, column)| source.position(line, column));
        let (line, column) = (position.map(|position| position.line), position.map(|position| position.column));
        PrepareError { line, column, ..PrepareError::plain(message) }
    })?;
    // In another sandbox: what the parser leaves behind is not copied.
    let code = bytecode.clone();
    let loaded = in_sandbox(runner, move |sandbox| Box::pin(compiled_and_captured(runner, sandbox, code)));
    let (compiled, captured, time) = loaded.await?;
    let top_level_time = match time {
        Some(time) => time,
        // Once more, whatever it asks for.
        None => in_sandbox(runner, move |sandbox| Box::pin(timed(runner, sandbox, bytecode))).await.unwrap_or_default(),
    };
    let captured = captured.and_then(|delta| match delta.copied_bytes() > CAPTURED_BYTES_MAX {
        true => Err(format!("leaves more than {} MiB to be copied", CAPTURED_BYTES_MAX >> 20)),
        false => Ok(delta),
    });
    Ok(match captured {
        Ok(delta) => Loaded { delta, top_level: TopLevel::Captured, top_level_time },
        Err(reason) => Loaded { delta: compiled, top_level: TopLevel::EachCall { reason }, top_level_time },
    })
}

/// What loading changes; what that and the top level change, or why that is not kept; how long the top level ran, if it was not
/// ended for what it asked.
async fn compiled_and_captured(
    runner: &Runner,
    sandbox: &mut Sandbox<Extra>,
    bytecode: Vec<u8>,
) -> wasmtime::Result<(Delta, Result<Delta, String>, Option<Duration>)> {
    let store = &mut sandbox.store;
    let guest = Guest::new(&runner.loading_code, store).await?;
    if !guest.load(store, &bytecode).await? {
        return Err(wasmtime::format_err!("its compiled form was not taken"));
    }
    let compiled = Delta::between(&runner.memory, guest.bytes(store), runner.stack_bytes);
    store.data_mut().extra.mode = Mode::Capture;
    let start = Instant::now();
    let prepared: wasmtime::Result<u32> = guest.call(store, "prepare", ()).await;
    let is_whole = !prepared.as_ref().is_err_and(|error| error.is::<Observed>());
    let time = is_whole.then(|| start.elapsed());
    let captured = match prepared {
        Ok(PREPARED) => Ok(Delta::between(&runner.memory, guest.bytes(store), runner.stack_bytes)),
        Ok(PREPARED_THROWS) => Err("throws".to_owned()),
        Ok(_) => Err("leaves a promise open".to_owned()),
        Err(error) => Err(match error.downcast_ref::<Observed>() {
            Some(observed) => observed.to_string(),
            None => "breaks a limit".to_owned(),
        }),
    };
    Ok((compiled, captured, time))
}

/// How long the top level runs, whatever it asks for.
async fn timed(runner: &Runner, sandbox: &mut Sandbox<Extra>, bytecode: Vec<u8>) -> wasmtime::Result<Duration> {
    let store = &mut sandbox.store;
    let guest = Guest::new(&runner.loading_code, store).await?;
    guest.load(store, &bytecode).await?;
    let start = Instant::now();
    let _: wasmtime::Result<u32> = guest.call(store, "prepare", ()).await;
    Ok(start.elapsed())
}

/// Runs `work` in a sandbox without a session, which nobody uses again.
async fn in_sandbox<T, W>(runner: &'static Runner, work: W) -> Result<T, PrepareError>
where
    T: Send + 'static,
    W: FnOnce(&mut Sandbox<Extra>) -> BoxFuture<'_, wasmtime::Result<T>> + Send + 'static,
{
    let sandbox = Sandbox::new(runner.loading_runtime, Extra::default()).await;
    let mut sandbox = sandbox.map_err(|failure| PrepareError::plain(failure.message))?;
    let clock = sandbox.begin(None, &CHECK_LIMITS);
    let (done, _) = wasm::run(runner.loading_runtime, clock, async move {
        let done = work(&mut sandbox).await;
        sandbox.end(done)
    })
    .await;
    let failure = match done {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(failure)) => failure,
        Err(broken) => broken.0,
    };
    Err(PrepareError::plain(format!("the source could not be loaded: {}", failure.message)))
}

//! Loads a hook when it is bound: compiles its source, and runs its top level once if that makes no visible difference.
//!
//! A top level that uses something that differs between runs (time, random numbers, the log, a timer, the host), or
//! that leaves a promise pending, runs at each run. Otherwise a run starts from the state after the top level.

use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use wasmtime::Store;

use super::delta::Delta;
use super::host::{Extra, Mode, Observed};
use super::image::Image;
use super::instance::{Exports, Guest};
use super::runner::Runner;
use crate::hooks::engines::engine::{PrepareError, TopLevel};
use crate::hooks::engines::javascript::{Source, compile_error};
use crate::hooks::engines::limits::CHECK_LIMITS;
use crate::hooks::engines::wasm::{self, CodeCache, Sandbox, SandboxState};

/// Maximum size of changes that are copied into each new sandbox. A hook with more changes has an image: this takes
/// about three times its memory, but nothing is copied.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// Largest image. A top level that leaves more runs at each run.
const IMAGE_BYTES_MAX: usize = 16 << 20;

/// The results of the module's `prepare`.
const PREPARED: u32 = 0;
const PREPARED_THROWS: u32 = 1;

/// A loaded hook.
pub(super) struct Loaded {
    pub(super) start: Start,
    pub(super) top_level: TopLevel,
    /// How long the top level ran when the hook was bound.
    pub(super) top_level_time: Duration,
}

/// The starting state of a run.
pub(super) enum Start {
    Delta(Delta),
    Image(Image),
}

impl Start {
    /// The instance in a sandbox, which may have served an earlier run, and its exports.
    pub(super) async fn guest<'a>(
        &self,
        runner: &'a Runner,
        store: &mut Store<SandboxState<Extra>>,
    ) -> wasmtime::Result<(Guest, &'a Exports)> {
        let present = store.data().extra.guest;
        match self {
            Start::Delta(delta) => {
                let code = &runner.code;
                let guest = match present {
                    Some(guest) => guest,
                    None => Guest::copied(code, store, delta).await?,
                };
                Ok((guest, &code.exports))
            }
            Start::Image(image) => {
                let code = runner.apart_of_image()?;
                let guest = match present {
                    Some(guest) => guest,
                    None => Guest::on_image(code, store, image).await?,
                };
                Ok((guest, &code.exports))
            }
        }
    }
}

impl Start {
    /// The initial memory size of a run.
    pub(super) fn memory_bytes(&self, runner: &Runner) -> usize {
        match self {
            Start::Delta(delta) => delta.memory_bytes().max(runner.memory.len()),
            Start::Image(image) => image.bytes().len(),
        }
    }

    /// Fills a part of the memory, from `from` on, with its initial content.
    pub(super) fn fill(&self, runner: &Runner, from: usize, piece: &mut [u8]) {
        let base = match self {
            Start::Delta(_) => &runner.memory,
            Start::Image(image) => image.bytes(),
        };
        let present = base.get(from..).unwrap_or_default();
        let (copied, grown) = piece.split_at_mut(present.len().min(piece.len()));
        copied.copy_from_slice(&present[..copied.len()]);
        // Filling zero bytes at the end of a page is slow, because the processor accesses the next page, which may not
        // be mapped.
        if !grown.is_empty() {
            grown.fill(0);
        }
        if let Start::Delta(delta) = self {
            delta.apply_within(from, piece);
        }
    }
}

/// The memory after loading, reduced to the needed part.
enum Memory {
    Delta(Delta),
    Whole(Vec<u8>),
}

/// Compiles the source, and captures its top level if possible.
pub(super) async fn load(runner: &'static Runner, cache: &CodeCache, source: &Source) -> Result<Loaded, PrepareError> {
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
    // In another sandbox, so that leftovers of the parser are not copied.
    let code = bytecode.clone();
    let loaded = in_sandbox(runner, move |sandbox| Box::pin(compiled_and_captured(runner, sandbox, code)));
    let (compiled, captured, time) = loaded.await?;
    let top_level_time = match time {
        Some(time) => time,
        // Runs it again, without restrictions.
        None => in_sandbox(runner, move |sandbox| Box::pin(timed(runner, sandbox, bytecode))).await.unwrap_or_default(),
    };
    let (memory, top_level) = match captured {
        Ok(memory) => (memory, TopLevel::Captured),
        Err(reason) => (compiled, TopLevel::EachCall { reason }),
    };
    let start = match memory {
        Memory::Delta(delta) => Start::Delta(delta),
        Memory::Whole(bytes) => Start::Image(image(runner, cache, bytes).await?),
    };
    Ok(Loaded { start, top_level, top_level_time })
}

async fn image(runner: &'static Runner, cache: &CodeCache, bytes: Vec<u8>) -> Result<Image, PrepareError> {
    runner.apart(cache).await?;
    let made = tokio::task::spawn_blocking(move || Image::new(runner.runtime, bytes)).await;
    let made = made.unwrap_or_else(|error| Err(wasmtime::format_err!("{error}")));
    made.map_err(|error| PrepareError::plain(format!("the source could not be loaded: {error:#}")))
}

/// Memory after loading; memory after the top level, or why that is not used; how long the top level ran, unless it was
/// ended for something that it used.
async fn compiled_and_captured(
    runner: &Runner,
    sandbox: &mut Sandbox<Extra>,
    bytecode: Vec<u8>,
) -> wasmtime::Result<(Memory, Result<Memory, String>, Option<Duration>)> {
    let store = &mut sandbox.store;
    let guest = Guest::new(&runner.loading_code, store).await?;
    if !guest.load(store, &bytecode).await? {
        return Err(wasmtime::format_err!("its compiled form was not accepted"));
    }
    let compiled = memory(runner, &guest, store).await?;
    store.data_mut().extra.mode = Mode::Capture;
    let start = Instant::now();
    let prepared: wasmtime::Result<u32> = guest.call(store, "prepare", ()).await;
    let is_whole = !prepared.as_ref().is_err_and(|error| error.is::<Observed>());
    let time = is_whole.then(|| start.elapsed());
    let captured = match prepared {
        Ok(PREPARED) => match memory(runner, &guest, store).await? {
            Memory::Whole(bytes) if bytes.len() > IMAGE_BYTES_MAX => {
                Err(format!("leaves more than {} MiB", IMAGE_BYTES_MAX >> 20))
            }
            memory => Ok(memory),
        },
        Ok(PREPARED_THROWS) => Err("throws".to_owned()),
        Ok(_) => Err("leaves a promise open".to_owned()),
        Err(error) => Err(match error.downcast_ref::<Observed>() {
            Some(observed) => observed.to_string(),
            None => "breaks a limit".to_owned(),
        }),
    };
    Ok((compiled, captured, time))
}

/// The guest's current memory.
async fn memory(runner: &Runner, guest: &Guest, store: &mut Store<SandboxState<Extra>>) -> wasmtime::Result<Memory> {
    let delta = Delta::between(&runner.memory, guest.bytes(store), runner.stack_bytes);
    if delta.copied_bytes() <= COPIED_BYTES_MAX {
        return Ok(Memory::Delta(delta));
    }
    // With an image each page that a run writes to is copied, so new allocations should be close together.
    guest.call::<_, ()>(store, "seal", ()).await?;
    let mut bytes = guest.bytes(store).to_vec();
    bytes[..runner.stack_bytes].fill(0);
    Ok(Memory::Whole(bytes))
}

/// Measures how long the top level runs, without restrictions.
async fn timed(runner: &Runner, sandbox: &mut Sandbox<Extra>, bytecode: Vec<u8>) -> wasmtime::Result<Duration> {
    let store = &mut sandbox.store;
    let guest = Guest::new(&runner.loading_code, store).await?;
    guest.load(store, &bytecode).await?;
    let start = Instant::now();
    let _: wasmtime::Result<u32> = guest.call(store, "prepare", ()).await;
    Ok(start.elapsed())
}

/// Runs `work` in a sandbox without a session, which is then discarded.
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

//! Loads a hook when it is bound: its source is compiled, and its top level run where nobody can see the difference.
//!
//! A top level that asked for something another call would get differently (time, random numbers, the log, a timer, the host), or
//! that left a promise open, runs at each call. Of the others a call starts from what the top level left.

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
use crate::hooks::engines::wasm::{self, CodeCache, Sandbox, State};

/// What loading may change to be copied into each new sandbox. A hook that changes more has an image: about three times its
/// memory for the hook, and nothing to copy.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// Largest image. A top level that leaves more runs at each call.
const IMAGE_BYTES_MAX: usize = 16 << 20;

/// What `prepare` of the module gives.
const PREPARED: u32 = 0;
const PREPARED_THROWS: u32 = 1;

/// A hook that is loaded.
pub(super) struct Loaded {
    pub(super) start: Start,
    pub(super) top_level: TopLevel,
    /// How long the top level ran when the hook was bound.
    pub(super) top_level_time: Duration,
}

/// What a call starts from.
pub(super) enum Start {
    Delta(Delta),
    Image(Image),
}

impl Start {
    /// The instance in a sandbox, which may have served a call before, and where it has what a call uses.
    pub(super) async fn guest<'a>(
        &self,
        runner: &'a Runner,
        store: &mut Store<State<Extra>>,
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
    /// How much memory a call has at first.
    pub(super) fn memory_bytes(&self, runner: &Runner) -> usize {
        match self {
            Start::Delta(delta) => delta.memory_bytes().max(runner.memory.len()),
            Start::Image(image) => image.bytes().len(),
        }
    }

    /// What a piece of the memory, from `from` on, holds at first.
    pub(super) fn fill(&self, runner: &Runner, from: usize, piece: &mut [u8]) {
        let base = match self {
            Start::Delta(_) => &runner.memory,
            Start::Image(image) => image.bytes(),
        };
        let present = base.get(from..).unwrap_or_default();
        let (copied, grown) = piece.split_at_mut(present.len().min(piece.len()));
        copied.copy_from_slice(&present[..copied.len()]);
        // To fill nothing at the end of a page takes long: the processor looks at the next page, which may not be there.
        if !grown.is_empty() {
            grown.fill(0);
        }
        if let Start::Delta(delta) = self {
            delta.apply_within(from, piece);
        }
    }
}

/// Memory after loading, as little of it as is needed.
enum Memory {
    Delta(Delta),
    Whole(Vec<u8>),
}

/// Compiles the source, and captures its top level if it may be.
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
    // In another sandbox: what the parser leaves behind is not copied.
    let code = bytecode.clone();
    let loaded = in_sandbox(runner, move |sandbox| Box::pin(compiled_and_captured(runner, sandbox, code)));
    let (compiled, captured, time) = loaded.await?;
    let top_level_time = match time {
        Some(time) => time,
        // Once more, whatever it asks for.
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

/// Memory after loading; after that and the top level, or why that is not kept; how long the top level ran, if it was not ended for
/// what it asked.
async fn compiled_and_captured(
    runner: &Runner,
    sandbox: &mut Sandbox<Extra>,
    bytecode: Vec<u8>,
) -> wasmtime::Result<(Memory, Result<Memory, String>, Option<Duration>)> {
    let store = &mut sandbox.store;
    let guest = Guest::new(&runner.loading_code, store).await?;
    if !guest.load(store, &bytecode).await? {
        return Err(wasmtime::format_err!("its compiled form was not taken"));
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

/// What the guest's memory is now.
async fn memory(runner: &Runner, guest: &Guest, store: &mut Store<State<Extra>>) -> wasmtime::Result<Memory> {
    let delta = Delta::between(&runner.memory, guest.bytes(store), runner.stack_bytes);
    if delta.copied_bytes() <= COPIED_BYTES_MAX {
        return Ok(Memory::Delta(delta));
    }
    // Of an image each page that a call writes to costs: what it allocates is to lie together.
    guest.call::<_, ()>(store, "seal", ()).await?;
    let mut bytes = guest.bytes(store).to_vec();
    bytes[..runner.stack_bytes].fill(0);
    Ok(Memory::Whole(bytes))
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

//! The host's side of runner/src/host.rs: the functions that the module imports. Every address and length from the
//! guest is checked before anything is copied.

use std::sync::Arc;
use std::time::SystemTime;

use wasmtime::{Caller, Linker, Memory, Result};

use super::instance::{Guest, outside, text};
use super::written::Written;
use crate::hooks::engines::javascript::calls::{Calls, Parts};
use crate::hooks::engines::javascript::{Digits, asks, web};
use crate::hooks::engines::limits::{Broken, COPIED_BYTES_MAX, copied_failure};
use crate::hooks::engines::wasm::{SandboxState, capability, fatal};
use crate::hooks::session::{HostError, Session};

/// The module name of the imported functions.
const MODULE: &str = "snaphook";

/// Additional state of a JavaScript sandbox.
#[derive(Default)]
pub(super) struct Extra {
    /// The numbers in this run's input that JavaScript changes.
    pub(super) digits: Digits,
    /// Set once it exists.
    pub(super) guest: Option<Guest>,
    pub(super) memory: Option<Memory>,
    pub(super) calls: Calls,
    pub(super) mode: Mode,
    /// Whether it was reset to the state before its run.
    pub(super) is_restored: bool,
    /// What its runs have written.
    pub(super) written: Written,
}

/// The purpose of a guest's execution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// A run of the hook.
    #[default]
    Call,
    /// Capturing the state after its top level, which must not use anything that differs between runs.
    Capture,
    /// Creating the snapshot: time stands still.
    #[cfg(test)]
    Boot,
}

/// Something used by a top level that differs between runs. Ends the guest while it is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Observed {
    Time,
    Random,
    Timer,
    Log,
    Host,
}

impl std::fmt::Display for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Observed::Time => "asks for the time",
            Observed::Random => "asks for random numbers",
            Observed::Timer => "sets a timer",
            Observed::Log => "writes to the log",
            Observed::Host => "makes a host call",
        })
    }
}

impl std::error::Error for Observed {}

type Call<'a> = Caller<'a, SandboxState<Extra>>;

pub(super) fn link(linker: &mut Linker<SandboxState<Extra>>) -> Result<()> {
    linker.func_wrap(MODULE, "log", |caller: Call<'_>, level: u32, at: u32, length: u32| {
        observe(&caller, Observed::Log)?;
        let message = text(copy(&caller, at, length)?);
        caller.data().write_log(asks::log_level(level.min(3) as u8), message)
    })?;
    linker.func_wrap(MODULE, "now", |caller: Call<'_>| now(&caller))?;
    linker.func_wrap(MODULE, "observe", |caller: Call<'_>, what: u32| {
        observe(&caller, if what == 0 { Observed::Timer } else { Observed::Host })
    })?;
    linker.func_wrap(MODULE, "random", |mut caller: Call<'_>, to: u32, length: u32| {
        observe(&caller, Observed::Random)?;
        let bytes = web::random(length).filter(|bytes| bytes.len() == length as usize);
        let bytes = bytes.ok_or_else(|| wasmtime::format_err!("there are no {length} random bytes at once"))?;
        put(&mut caller, to, &bytes)
    })?;
    linker.func_wrap(MODULE, "compute", compute)?;
    linker.func_wrap_async(MODULE, "ask", |mut caller: Call<'_>, (at, length): (u32, u32)| {
        Box::new(async move {
            observe(&caller, Observed::Host)?;
            let call = text(copy(&caller, at, length)?);
            let answer = ask(&mut caller, &call).await?;
            caller.data_mut().extra.calls.answer(vec![answer.into_bytes()]);
            Ok::<(), wasmtime::Error>(())
        })
    })?;
    type Started = (u32, u32, u32, u32, u32);
    linker.func_wrap_async(
        MODULE,
        "start",
        |mut caller: Call<'_>, (operation, at, length, bytes_at, bytes_length): Started| {
            Box::new(async move {
                observe(&caller, Observed::Host)?;
                let (text, bytes) = copy_both(&caller, (at, length), (bytes_at, bytes_length))?;
                let session = caller.data().session_for_sleep()?;
                let started = caller.data_mut().extra.calls.start(&session, operation, text, bytes).await;
                started.map_err(wasmtime::Error::new)
            })
        },
    )?;
    linker.func_wrap_async(MODULE, "wait", |mut caller: Call<'_>, (call, milliseconds): (u32, f64)| {
        Box::new(async move {
            let session = caller.data().session_for_sleep()?;
            let waited = caller.data_mut().extra.calls.wait(&session, call, milliseconds).await;
            waited.map_err(wasmtime::Error::new)
        })
    })?;
    linker.func_wrap(MODULE, "cancel", |mut caller: Call<'_>, call: u32| caller.data_mut().extra.calls.cancel(call))?;
    linker.func_wrap(MODULE, "part", |caller: Call<'_>, part: u32| {
        let length = caller.data().extra.calls.part(part).map(i32::try_from);
        // No part is as long as that.
        length.and_then(|length| length.ok()).unwrap_or(-1)
    })?;
    linker.func_wrap(MODULE, "take", |mut caller: Call<'_>, part: u32, to: u32| {
        let bytes = caller.data_mut().extra.calls.take(part);
        put(&mut caller, to, &bytes)
    })?;
    Ok(())
}

/// Ends a guest that is being captured.
fn observe(caller: &Call<'_>, what: Observed) -> Result<()> {
    match caller.data().extra.mode {
        Mode::Call => Ok(()),
        Mode::Capture => Err(wasmtime::Error::new(what)),
        #[cfg(test)]
        Mode::Boot => Err(wasmtime::Error::new(what)),
    }
}

/// Microseconds since 1970.
fn now(caller: &Call<'_>) -> Result<f64> {
    #[cfg(test)]
    if caller.data().extra.mode == Mode::Boot {
        return Ok(0.0);
    }
    observe(caller, Observed::Time)?;
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Ok(time.map_or(0.0, |time| time.as_micros() as f64))
}

/// URLs, digests, decoding: pure, without a grant.
fn compute(mut caller: Call<'_>, operation: u32, at: u32, length: u32, bytes_at: u32, bytes_length: u32) -> Result<()> {
    let (argument, bytes) = copy_both(&caller, (at, length), (bytes_at, bytes_length))?;
    let parts: Parts = match operation {
        0 => vec![web::url(&argument).unwrap_or_default().into_bytes()],
        1 => vec![Vec::new(), web::digest(&argument, &bytes)],
        2 | 3 => web::decode(bytes, operation == 3).map(|text| vec![text.into_bytes()]).unwrap_or_default(),
        other => return Err(wasmtime::format_err!("there is no computation {other}")),
    };
    caller.data_mut().extra.calls.answer(parts);
    Ok(())
}

/// `operation`, a line end, and its arguments.
async fn ask(caller: &mut Call<'_>, call: &str) -> Result<String> {
    let (operation, arguments) = call.split_once('\n').unwrap_or((call, ""));
    let mut digits = std::mem::take(&mut caller.data_mut().extra.digits);
    let asked = async |session: Arc<Session>| {
        asks::ask(&session, &mut digits, operation, arguments).await.map_err(HostError::Fatal)
    };
    let asked = capability(caller.data(), asked).await;
    caller.data_mut().extra.digits = digits;
    asked?.map_err(|error| fatal(HostError::Access(error)))
}

fn copy_both(caller: &Call<'_>, a: (u32, u32), b: (u32, u32)) -> Result<(String, Vec<u8>)> {
    if a.1 as usize + b.1 as usize > COPIED_BYTES_MAX {
        return Err(wasmtime::Error::new(Broken(copied_failure())));
    }
    Ok((text(copy(caller, a.0, a.1)?), copy(caller, b.0, b.1)?))
}

fn copy(caller: &Call<'_>, at: u32, length: u32) -> Result<Vec<u8>> {
    let (at, length) = (at as usize, length as usize);
    if length > COPIED_BYTES_MAX {
        return Err(wasmtime::Error::new(Broken(copied_failure())));
    }
    let bytes = memory(caller)?.data(caller).get(at..).and_then(|rest| rest.get(..length));
    bytes.map(<[u8]>::to_vec).ok_or_else(outside)
}

fn put(caller: &mut Call<'_>, to: u32, bytes: &[u8]) -> Result<()> {
    let rest = memory(caller)?.data_mut(caller).get_mut(to as usize..);
    let place = rest.and_then(|rest| rest.get_mut(..bytes.len())).ok_or_else(outside)?;
    place.copy_from_slice(bytes);
    Ok(())
}

fn memory(caller: &Call<'_>) -> Result<Memory> {
    caller.data().extra.memory.ok_or_else(|| wasmtime::format_err!("the sandbox has no memory"))
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;

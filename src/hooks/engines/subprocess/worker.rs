//! The subprocess: reads one order and its code, limits and sandboxes itself, runs the job, replies, and ends.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setpriority_process, setrlimit};

use super::{DONE, Job, Order, REFUSED};
use crate::hooks::engines::engine::PrepareError;
use crate::hooks::engines::javascript::Source;
use crate::hooks::engines::{component, native, wasm};

/// Requests take precedence over compilation, which takes precedence over hooks that loop.
const NICENESS: i32 = 5;

/// Runs the job requested over standard input, which is a socket, and ends the process.
pub fn serve() -> ! {
    match answer() {
        // Exit handlers of libraries do not run.
        Ok(()) => native::exit_at_once(0),
        Err(error) => {
            // Nothing else would report it.
            let _ = writeln!(io::stderr(), "{error}");
            native::exit_at_once(1)
        }
    }
}

fn answer() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use crate::hooks::engines::v8::system;
        system::close_inherited();
        system::yield_memory();
        system::leave_no_core();
    }
    let mut connection = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let order: Order = snaphook_driver::json::typed(&line)?;
    let mut code = vec![0; order.code_bytes];
    reader.read_exact(&mut code)?;
    end_with_server(connection.try_clone()?)?;
    let _ = setpriority_process(None, NICENESS);
    let work = work(&order, code);
    let (tag, reply) = match work {
        Ok(result) => (DONE, result),
        Err(refusal) => (REFUSED, serde_json::to_vec(&refusal)?),
    };
    connection.write_all(&[tag])?;
    connection.write_all(&reply)
}

/// Ends the process when the server closes its end: the server sends nothing more, so nobody waits for the reply then.
fn end_with_server(mut connection: UnixStream) -> io::Result<()> {
    let (sender, begun) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("server".into()).spawn(move || {
        let _ = sender.send(());
        let _ = connection.read(&mut [0]);
        let _ = kill_process(getpid(), Signal::KILL);
    })?;
    // Starting a thread takes the loader's lock, which is held while a library's initialisers run, possibly for ever.
    let _ = begun.recv();
    Ok(())
}

fn work(order: &Order, code: Vec<u8>) -> Result<Vec<u8>, PrepareError> {
    match order.job {
        Job::Compile => {
            let engine = wasm::compiler().map_err(PrepareError::plain)?;
            bound(order);
            component::compile(&engine, &code)
        }
        Job::CompileOwn => {
            let engine = wasm::compiler().map_err(PrepareError::plain)?;
            engine.precompile_module(&code).map_err(|error| PrepareError::plain(format!("{error:#}")))
        }
        Job::Load => native::try_out(Path::new(OsStr::from_bytes(&code))).map(|()| Vec::new()),
        Job::LoadModule => {
            let tried = snaphook_modules::try_out(Path::new(OsStr::from_bytes(&code)));
            tried.map(|()| Vec::new()).map_err(PrepareError::plain)
        }
        Job::Parse { phase, language } => {
            bound(order);
            let source = Source::compile(&code, phase, language)?;
            serde_json::to_vec(&source).map_err(|error| PrepareError::plain(error.to_string()))
        }
    }
}

/// Limits everything that follows. If the kernel does not support a limit, the others still apply.
fn bound(order: &Order) {
    let limit = |resource, current: Option<u64>, maximum: Option<u64>| {
        // The environment may have set a lower limit, which applies as well.
        if current.is_some() {
            let _ = setrlimit(resource, Rlimit { current, maximum });
        }
    };
    // All private memory of the process, written or not; the filter allows no other kind.
    let memory = order.memory_bytes.map(|bytes| bytes.saturating_add(present_bytes()));
    limit(Resource::Data, memory, memory);
    // Exceeding the soft limit ends the process with a signal that shows the reason.
    limit(Resource::Cpu, order.cpu_seconds, order.cpu_seconds.map(|seconds| seconds + 1));
    #[cfg(target_os = "linux")]
    confine();
}

/// The memory that the process already uses.
fn present_bytes() -> u64 {
    #[cfg(target_os = "linux")]
    return crate::hooks::engines::v8::system::data_bytes();
    #[cfg(not(target_os = "linux"))]
    return 0;
}

/// Denies files, the network and other processes; only threads are allowed.
#[cfg(target_os = "linux")]
fn confine() {
    use crate::hooks::engines::confine::{CALLS, nothing};
    use crate::hooks::engines::v8::system::filter_calls;
    use crate::hooks::seccomp::Filter;

    if let Ok(ruleset) = nothing() {
        let _ = ruleset.restrict_self();
    }
    let filter = Filter::new()
        .allow(CALLS)
        .allow(&[libc::SYS_set_robust_list, libc::SYS_kill, libc::SYS_tgkill])
        .allow_with(libc::SYS_clone, 0, libc::CLONE_THREAD as u32)
        .unknown(libc::SYS_clone3);
    let _ = filter_calls(&filter.otherwise_refuse());
}

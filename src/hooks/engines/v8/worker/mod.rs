//! The code of the worker processes: V8, and nothing of the server.
//!
//! The first process (the zygote) loads V8 and the runner, runs a dummy hook to have everything compiled, drops all
//! rights that it does not need, and forks a child for each sandbox that the server requests. A child has one isolate,
//! serves one hook, and ends after a run or is reset to its state before the first run (image.rs). So the state that a
//! hook leaves, or a crash of V8, affects only one process.
//!
//! All of this happens inside the host calls of V8's thread (library.rs), because only that thread continues after a
//! fork.

mod confine;
mod image;
mod library;
mod promises;
pub(crate) mod system;

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use self::image::{Files, Image, Mark};
use self::library::{Event, Handle, SharedBuffer, V8, Value};
pub(super) use self::library::{ICU_FILE, LIBRARY_FILE};
use self::system::Forked;
pub(super) use self::system::TRAPPED;
use super::frames::{Call, Draft, Frame, Keep, Kind, Load, NO_TIMER, REUSABLE, read};
use crate::hooks::engines::javascript::{SCRIPTS, web};
use crate::hooks::engines::limits::{COPIED_BYTES_MAX, OUTPUT_BYTES_MAX};

/// Code before and after the scripts: together they are one expression, whose value the worker uses.
const HOST: &str = include_str!("host.js");
const PARSE: &str = include_str!("parse.js");
const ADDITIONS: &str = include_str!("additions.js");
const TURNS: &str = include_str!("turns.js");

/// Environment variable that turns off restoring memory.
pub(super) const FORK_ONLY: &str = "SNAPHOOK_V8_FORK_ONLY";

/// One thread for JavaScript and its helpers; code compiled before the fork is kept; `Map.prototype.getOrInsert` as in
/// QuickJS.
const FLAGS: &str = "--single-threaded --no-flush-bytecode --js-upsert";

/// After this processor time of a run, the process gets a lower priority.
pub(super) const PATIENCE: Duration = Duration::from_millis(2);

/// Memory of V8 beyond JavaScript's heap: copies during collections, compiled code, the texts of a run. JavaScript is
/// terminated at the limit; the process ends only beyond the limit plus this.
const MEMORY_SLACK_BYTES: u64 = 32 << 20;

/// The layout of the shared buffer, see host.js.
const HEAD_BYTES: usize = 64;
const CHUNK_BYTES: usize = 65_536;
const CHUNK_UNITS: usize = 8_192;

/// Fields of the head: whether work may be pending after the answer, and the number of rejected promises without a
/// handler.
const LEFT: usize = 5;
const REJECTED: usize = 6;

/// Operations of host.js.
const SERVE: i32 = 1;
const LOAD: i32 = 2;
const NEXT: i32 = 3;
const TAKE: i32 = 4;
const TEXT: i32 = 5;
const BYTES: i32 = 6;
const LOG: i32 = 7;
const ASK: i32 = 8;
const START: i32 = 9;
const WAIT: i32 = 10;
const JOIN: i32 = 11;
const CANCEL: i32 = 12;
const URL: i32 = 13;
const DIGEST: i32 = 14;
const RANDOM: i32 = 15;
const ENCODE: i32 = 16;
const DECODE: i32 = 17;
const WATCH: i32 = 18;
const REJECTIONS: i32 = 19;

/// Tasks.
const SCRIPT: u64 = 1;
const GLOBAL: u64 = 2;
const TURN: u64 = 3;

/// Runs this process as a worker until it ends. `folder` contains the library; standard input is the socket to the
/// server.
pub fn serve(folder: &Path) -> ! {
    system::close_inherited();
    system::yield_memory();
    system::tell_of_traps();
    system::lower_priority_in_time();
    system::leave_no_core();
    let control = io::stdin().as_fd().try_clone_to_owned();
    let refused = match control {
        Ok(control) => match start(folder, UnixStream::from(control)) {
            Ok(never) => match never {},
            Err((control, message)) => (control, message),
        },
        // There is nobody to report this to.
        Err(_) => system::exit(system::FAILED),
    };
    let (control, message) = refused;
    let _ = Draft::new(Kind::Refused).bytes(message.as_bytes()).write(&control);
    system::exit(system::FAILED)
}

/// Never returns: the library's threads do the rest.
enum Never {}

fn start(folder: &Path, control: UnixStream) -> Result<Never, (UnixStream, String)> {
    let (sender, receiver) = channel();
    let listener = move |event: Event<'_>| match event {
        Event::Called => worker().called(),
        Event::Ended(TURN, value) => {
            if let Value::Text(_) = value {
                // It may call the host, so the worker must not be locked.
                promises::run();
            }
            worker().ended(&value);
        }
        Event::Ended(_, value) => {
            let loaded = match value {
                Value::Other(handle) => Ok(handle),
                Value::Exception(text) => Err(text.to_owned()),
                Value::OutOfMemory => Err("out of memory".to_owned()),
                Value::Text(_) | Value::Null | Value::Undefined => Err("a script returned nothing".to_owned()),
            };
            // The receiver exists until both have arrived.
            let _ = sender.send(loaded);
        }
    };
    system::forget_children();
    let made = make(folder, Box::new(listener), &receiver);
    let (v8, functions, shared) = match made {
        Ok(made) => made,
        Err(message) => return Err((control, message)),
    };
    let present = system::data_bytes();
    let most = match system::memory_most() {
        Ok(most) => most,
        Err(error) => return Err((control, format!("the worker's limits cannot be read: {error}"))),
    };
    let worker = Worker {
        v8,
        functions,
        shared,
        connection: control,
        present,
        most,
        image: None,
        mark: None,
        is_new: false,
        keep: Keep::Nothing,
        in_call: false,
        is_dirty: false,
        began: (0, 0),
        text: Vec::new(),
        bytes: Vec::new(),
        slots: Vec::new(),
    };
    if let Err(again) = WORKER.set(Mutex::new(worker)) {
        let worker = again.into_inner().unwrap_or_else(PoisonError::into_inner);
        return Err((worker.connection, "the worker was started twice".to_owned()));
    }
    v8.call(functions.serve, functions.receiver, functions.no_arguments, TURN);
    loop {
        std::thread::park();
    }
}

fn make(
    folder: &Path,
    listener: Box<dyn Fn(Event<'_>) + Send + Sync>,
    loaded: &Receiver<Result<Handle, String>>,
) -> Result<(&'static V8, Functions, SharedBuffer), String> {
    let v8 = library::start(folder, FLAGS, listener)?;
    let next = || loaded.recv().map_err(|_| "V8 returned no result".to_owned())?;
    v8.eval("globalThis", GLOBAL);
    let global = next()?;
    v8.set_host_function(global, "__snaphook");
    // The scripts are a module elsewhere; here they are the body of a function.
    let scripts = SCRIPTS.replace("\nexport function ", "\nfunction ");
    v8.eval(&format!("{HOST}{PARSE}{ADDITIONS}{scripts}{TURNS}"), SCRIPT);
    let runner = next()?;
    v8.eval("[]", GLOBAL);
    let no_arguments = next()?;
    // V8 detects the processor's features when it first converts a text to UTF-8, which takes tens of microseconds in a
    // virtual machine. A reset would make a child repeat this, so the zygote does it once.
    v8.eval("'\u{e4}\u{4e2d}'", GLOBAL);
    // The result is a text, which is not needed.
    let _ = loaded.recv();
    let shared = v8.shared(v8.element(runner, 0)).ok_or("the runner has no buffer")?;
    let functions = Functions {
        receiver: global,
        no_arguments,
        serve: v8.element(runner, 1),
        turn: v8.element(runner, 2),
        next: v8.element(runner, 3),
    };
    Ok((v8, functions, shared))
}

static WORKER: OnceLock<Mutex<Worker>> = OnceLock::new();

/// Only V8's thread locks it, never recursively. After a fork the continuing thread still holds the lock.
fn worker() -> MutexGuard<'static, Worker> {
    match WORKER.get() {
        Some(worker) => worker.lock().unwrap_or_else(PoisonError::into_inner),
        // It is set before the first call.
        None => system::exit(system::FAILED),
    }
}

/// The functions of turns.js.
#[derive(Clone, Copy)]
struct Functions {
    receiver: Handle,
    no_arguments: Handle,
    serve: Handle,
    turn: Handle,
    next: Handle,
}

struct Worker {
    v8: &'static V8,
    functions: Functions,
    shared: SharedBuffer,
    /// To the server: the zygote's, then the child's own.
    connection: UnixStream,
    /// The zygote's memory counted by RLIMIT_DATA, in bytes.
    present: u64,
    /// The hard limit of that.
    most: u64,
    /// The zygote's memory image, if memory can be restored.
    image: Option<Image>,
    /// In a child: the point of the reset.
    mark: Option<Mark>,
    /// A child that has not served a run yet.
    is_new: bool,
    keep: Keep,
    /// Whether a run is in progress; leftovers of one must not affect the next.
    in_call: bool,
    /// There was a host call between two runs.
    is_dirty: bool,
    /// Usage at the start of the run: processor time, memory.
    began: (u64, u64),
    /// Pieces of data from JavaScript, until the operation follows.
    text: Vec<u16>,
    bytes: Vec<u8>,
    /// Data for JavaScript.
    slots: Vec<Slot>,
}

/// A value being transferred to JavaScript, and its progress.
struct Slot {
    value: Content,
    taken: usize,
}

enum Content {
    Text(String),
    Bytes(Vec<u8>),
}

impl Worker {
    /// One call of `callHost`. Any error here ends the process, which the server detects.
    fn called(&mut self) {
        if let Err(error) = self.perform() {
            let _ = Draft::new(Kind::Fault).bytes(error.to_string().as_bytes()).write(&self.connection);
            system::exit(system::FAILED);
        }
    }

    fn perform(&mut self) -> io::Result<()> {
        let (operation, number, count) = (self.head(0), self.head(1), self.head(2));
        match operation {
            SERVE => self.fork_children(),
            LOAD => self.load(),
            NEXT => self.next_call(),
            WATCH => {
                let note = |count| worker().set_head(REJECTED, i32::try_from(count).unwrap_or(i32::MAX));
                promises::watch(note).map_err(io::Error::other)
            }
            REJECTIONS => {
                promises::tell();
                self.set_head(REJECTED, 0);
                Ok(())
            }
            TAKE => {
                self.take(number == 1);
                Ok(())
            }
            TEXT => {
                self.read_units(count);
                Ok(())
            }
            BYTES => {
                let count = usize::try_from(count).unwrap_or(0).min(CHUNK_BYTES);
                let piece = self.shared.bytes().get(HEAD_BYTES..HEAD_BYTES + count).unwrap_or_default();
                self.bytes.extend_from_slice(piece);
                Ok(())
            }
            _ => {
                self.read_units(count);
                let text = String::from_utf16_lossy(&std::mem::take(&mut self.text));
                let bytes = std::mem::take(&mut self.bytes);
                self.ask(operation, number, text, bytes)
            }
        }
    }

    fn ask(&mut self, operation: i32, number: i32, text: String, bytes: Vec<u8>) -> io::Result<()> {
        let whole = |number: i32| u64::try_from(number).unwrap_or(0);
        self.slots.clear();
        let refused = match operation {
            LOG | ASK | START | WAIT | JOIN | CANCEL if !self.in_call => {
                Some(r#"-{"code":"failed","message":"the call has ended"}"#)
            }
            ASK | START if text.len() + bytes.len() > COPIED_BYTES_MAX => {
                Some(r#"-{"code":"too-large","message":"more than 16 MiB were handed to the server at once"}"#)
            }
            _ => None,
        };
        if let Some(refusal) = refused {
            self.is_dirty |= !self.in_call;
            // No host call has this number.
            self.set_head(1, 0);
            self.give(Content::Text(refusal.into()));
            return Ok(());
        }
        let draft = match operation {
            LOG => {
                let level = u8::try_from(number).unwrap_or(u8::MAX);
                return Draft::new(Kind::Log).byte(level).bytes(text.as_bytes()).write(&self.connection);
            }
            ASK => Draft::new(Kind::Ask).bytes(text.as_bytes()),
            START => Draft::new(Kind::Start).number(whole(number)).bytes(text.as_bytes()).bytes(&bytes),
            WAIT => Draft::new(Kind::Wait).number(0).number(u64::try_from(number).unwrap_or(NO_TIMER)),
            JOIN => Draft::new(Kind::Wait).number(whole(number)).number(NO_TIMER),
            CANCEL => return Draft::new(Kind::Cancel).number(whole(number)).write(&self.connection),
            URL => {
                self.give(Content::Text(web::url(&text).unwrap_or_default()));
                return Ok(());
            }
            DIGEST => {
                self.give(Content::Bytes(web::digest(&text, &bytes)));
                return Ok(());
            }
            RANDOM => {
                let bytes = web::random(u32::try_from(number).unwrap_or(0));
                self.give(Content::Bytes(bytes.ok_or_else(|| io::Error::other("the system gives no random numbers"))?));
                return Ok(());
            }
            ENCODE => {
                self.give(Content::Bytes(text.into_bytes()));
                return Ok(());
            }
            DECODE => {
                let text = web::decode(bytes, number == 1);
                self.set_head(1, text.is_some().into());
                self.give(Content::Text(text.unwrap_or_default()));
                return Ok(());
            }
            other => return Err(io::Error::other(format!("the runner asked for operation {other}"))),
        };
        draft.write(&self.connection)?;
        let mut reply = self.receive(Kind::Reply)?;
        let call = reply.number()?;
        self.set_head(1, i32::try_from(call).map_err(io::Error::other)?);
        if reply.has_more() {
            self.give(Content::Text(reply.text()?));
        }
        while reply.has_more() {
            self.give(Content::Bytes(reply.bytes()?));
        }
        Ok(())
    }

    /// The zygote stays in this function; its children return, each with its own socket.
    fn fork_children(&mut self) -> io::Result<()> {
        // Without an image each process serves one run.
        self.image = if std::env::var_os(FORK_ONLY).is_some() { None } else { Image::take().ok().filter(Image::works) };
        let ruleset = confine::zygote().map_err(io::Error::other)?;
        self.tell_ready()?;
        let zygote = std::process::id();
        loop {
            let Some([socket, errors]) = take_descriptors(&self.connection)? else { system::exit(system::DONE) };
            // If there is no child, the descriptors are closed, which informs the server.
            if let Ok(Forked::Child) = system::fork() {
                self.connection = UnixStream::from(socket);
                system::end_with_parent(zygote);
                rustix::stdio::dup2_stderr(&errors)?;
                // Standard input is the zygote's socket; the child must not hold it open.
                rustix::stdio::dup2_stdin(&self.connection)?;
                self.is_new = true;
                if let Some(image) = &self.image {
                    self.mark = Some(Mark::new(image, Files::open()?)?);
                }
                return confine::child(ruleset);
            }
        }
    }

    fn tell_ready(&self) -> io::Result<()> {
        Draft::new(Kind::Ready)
            .number(std::process::id().into())
            .byte(self.image.is_some().into())
            .write(&self.connection)
    }

    fn load(&mut self) -> io::Result<()> {
        // Not earlier: by now the process has touched much of the memory that a run needs.
        self.tell_ready()?;
        let Load { check, keep, memory_bytes, source } = self.receive(Kind::Load)?.load()?;
        self.keep = keep;
        self.begin(memory_bytes)?;
        self.set_head(1, check.into());
        self.slots.clear();
        self.give(Content::Text(source));
        Ok(())
    }

    fn next_call(&mut self) -> io::Result<()> {
        if self.keep == Keep::Fresh
            && let Some(mark) = &self.mark
        {
            // Execution continues here after each reset.
            if mark.set().is_err() {
                self.mark = None;
            }
        }
        if self.is_dirty {
            // The server takes another worker.
            Draft::new(Kind::Spent).write(&self.connection)?;
            system::exit(system::DONE);
        }
        let Call { memory_bytes, phase, marker, context } = self.receive(Kind::Call)?.call()?;
        self.in_call = true;
        if !std::mem::take(&mut self.is_new) || self.keep == Keep::Fresh {
            self.begin(memory_bytes)?;
        }
        self.slots.clear();
        for text in [phase, marker, context] {
            self.give(Content::Text(text));
        }
        Ok(())
    }

    /// Starts measuring and limiting a run.
    fn begin(&mut self, memory_bytes: u64) -> io::Result<()> {
        self.began = system::usage();
        self.v8.set_memory_limit(usize::try_from(memory_bytes).unwrap_or(usize::MAX));
        system::limit_memory(self.present, memory_bytes.saturating_add(MEMORY_SLACK_BYTES), self.most)?;
        system::lower_priority_after(PATIENCE);
        Ok(())
    }

    /// A turn has ended: send an answer, or begin another turn.
    fn ended(&mut self, value: &Value<'_>) {
        let written = match value {
            _ if self.v8.memory_limit_reached() => Draft::new(Kind::Memory).write(&self.connection),
            Value::OutOfMemory => Draft::new(Kind::Memory).write(&self.connection),
            Value::Null => return self.next_turn(),
            Value::Text(_) if self.head(LEFT) != 0 || self.head(REJECTED) != 0 => return self.next_turn(),
            Value::Text(text) => {
                let (cpu, memory) = system::usage();
                let (cpu, memory) = (cpu - self.began.0, memory - self.began.1);
                // Pages that were written before cause no new page faults.
                let memory = memory + self.mark.as_ref().map_or(0, Mark::written);
                // The server rejects anything larger; the length tells why.
                let text = match text.len() > 2 * OUTPUT_BYTES_MAX {
                    true => Cow::Owned(format!("o0{}", text.len())),
                    false => Cow::Borrowed(*text),
                };
                let is_kept = match self.keep {
                    Keep::Nothing => false,
                    Keep::Fresh => self.mark.is_some() && !system::has_low_priority(),
                    Keep::State => true,
                };
                let flags = if is_kept { REUSABLE } else { 0 };
                let draft = Draft::new(Kind::Answer).byte(flags).number(cpu).number(memory).bytes(text.as_bytes());
                let written = draft.write(&self.connection);
                match &self.mark {
                    _ if !is_kept || written.is_err() => written,
                    Some(mark) if self.keep == Keep::Fresh => mark.put_back(),
                    _ => {
                        self.in_call = false;
                        // Pending work of this run is done before the next run.
                        self.v8.call(self.functions.next, self.functions.receiver, self.functions.no_arguments, TURN);
                        return;
                    }
                }
            }
            Value::Undefined => Draft::new(Kind::Stuck).write(&self.connection),
            Value::Exception(text) => Draft::new(Kind::Fault).bytes(text.as_bytes()).write(&self.connection),
            Value::Other(_) => Draft::new(Kind::Fault).bytes(b"a turn returned no result").write(&self.connection),
        };
        system::exit(if written.is_ok() { system::DONE } else { system::FAILED })
    }

    fn next_turn(&self) {
        self.v8.call(self.functions.turn, self.functions.receiver, self.functions.no_arguments, TURN);
    }

    fn receive(&self, kind: Kind) -> io::Result<Frame> {
        match read(&self.connection)? {
            Some(frame) if frame.kind == kind => Ok(frame),
            Some(frame) => Err(io::Error::other(format!("expected {kind:?}, got {:?}", frame.kind))),
            // The server no longer needs this worker.
            None => system::exit(system::DONE),
        }
    }

    fn give(&mut self, value: Content) {
        self.slots.push(Slot { value, taken: 0 });
    }

    /// Puts the next piece of a slot into the buffer.
    fn take(&mut self, is_bytes: bool) {
        let index = usize::try_from(self.head(4)).unwrap_or(usize::MAX);
        let shared = self.shared.bytes();
        let Some(chunk) = shared.get_mut(HEAD_BYTES..HEAD_BYTES + CHUNK_BYTES) else { return };
        let (total, length, more) = match self.slots.get_mut(index) {
            Some(Slot { value: Content::Bytes(bytes), taken }) if is_bytes => {
                let rest = &bytes[*taken..];
                let length = rest.len().min(CHUNK_BYTES);
                chunk[..length].copy_from_slice(&rest[..length]);
                *taken += length;
                (bytes.len(), length, *taken < bytes.len())
            }
            Some(Slot { value: Content::Text(text), taken }) if !is_bytes => {
                let (length, read) = put_units(&text[*taken..], chunk);
                *taken += read;
                (0, length, *taken < text.len())
            }
            // The runner requests only existing parts.
            _ => (0, 0, false),
        };
        let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        self.set_head(1, number(total));
        self.set_head(2, number(length));
        self.set_head(3, more.into());
    }

    fn read_units(&mut self, count: i32) {
        let count = usize::try_from(count).unwrap_or(0).min(CHUNK_UNITS);
        let units = self.shared.bytes().get(HEAD_BYTES..HEAD_BYTES + 2 * count).unwrap_or_default();
        self.text.extend(units.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])));
    }

    fn head(&self, index: usize) -> i32 {
        let bytes = self.shared.bytes().get(4 * index..4 * index + 4);
        bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_le_bytes)
    }

    fn set_head(&self, index: usize, value: i32) {
        if let Some(bytes) = self.shared.bytes().get_mut(4 * index..4 * index + 4) {
            bytes.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// Writes as many UTF-16 units of `text` as fit; returns their number and the bytes of text. A surrogate pair is never
/// split.
fn put_units(text: &str, chunk: &mut [u8]) -> (usize, usize) {
    let (mut units, mut read) = (0, 0);
    for character in text.chars() {
        let mut pair = [0; 2];
        let encoded = character.encode_utf16(&mut pair);
        if units + encoded.len() > CHUNK_UNITS {
            break;
        }
        for unit in encoded {
            chunk[2 * units..2 * units + 2].copy_from_slice(&unit.to_le_bytes());
            units += 1;
        }
        read += character.len_utf8();
    }
    (units, read)
}

/// The two descriptors of the server's next message; `None`: the server has ended.
fn take_descriptors(from: &UnixStream) -> io::Result<Option<[OwnedFd; 2]>> {
    let mut byte = [0];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(from, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    match (descriptors.next(), descriptors.next()) {
        (Some(socket), Some(errors)) => Ok(Some([socket, errors])),
        _ => Err(io::Error::other("a message without descriptors")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_of_two_units_are_not_split() {
        let mut chunk = vec![0; CHUNK_BYTES];
        let text = format!("{}😀x", "a".repeat(CHUNK_UNITS - 1));
        assert_eq!(put_units(&text, &mut chunk), (CHUNK_UNITS - 1, CHUNK_UNITS - 1));
        assert_eq!(put_units(&text[CHUNK_UNITS - 1..], &mut chunk), (3, 5));
        assert_eq!(put_units("", &mut chunk), (0, 0));
    }
}

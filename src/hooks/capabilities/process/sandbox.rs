//! The sandbox of a program on Linux, prepared before the program starts.
//!
//! - **Landlock**: the program may read and execute itself, its loader and its libraries, and use its temporary
//!   directory; it gets no other files, no TCP, and no signals to processes outside.
//! - **Namespaces** for processes, network and IPC: killing the program kills all processes that it started, and it has
//!   no network. As root they are created directly, otherwise through a user namespace, where the system allows either.
//! - **A dedicated user** if the server runs as root: a user id that nobody else has, so that the process limit only
//!   counts the program's processes and no others can be signalled.
//! - **Seccomp**: it cannot leave its process group, which is used to kill it, open sockets (except socket pairs, which
//!   only connect to each other), use memory that nothing counts, or make system calls that only increase the attack
//!   surface. Without namespaces it cannot signal other processes either.
//! - **Limits**: memory, CPU time, file size, open files, processes; no core dump.
//!
//! If a kernel or a container does not support one of them, the others still apply.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
    path_beneath_rules,
};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::child::Plan;
use crate::config::ProcessGrant;
use crate::hooks::seccomp::Filter;

/// Processes and threads of one run.
pub(super) const PROCESSES_MAX: u64 = 64;
const OPEN_FILES_MAX: u64 = 256;
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Address space beyond the granted memory: code, libraries, and memory that runtimes reserve but never touch, which
/// can be tens of gigabytes. Touched memory is counted while the program runs.
const ADDRESSES_BEYOND: u64 = 64 << 30;

/// The directories of libraries; those that do not exist are skipped.
const LIBRARIES: [&str; 11] = [
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
    "/gnu/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
];
const DEVICES_READ: [&str; 3] = ["/dev/zero", "/dev/random", "/dev/urandom"];

/// First user id for programs; far from those that systems assign.
const USER_FIRST: u32 = 0x7000_0000;
const USERS: u32 = 1 << 24;

/// Prefix of the temporary directories' names; the server's process id follows.
const WORKSPACE_PREFIX: &str = "snaphook-process-";

/// A name starts with a dot until the directory is locked. Such a directory of this age was left by a server that was
/// killed.
const STALE_AGE: Duration = Duration::from_secs(60);

/// File beside a directory: contains the session whose processes use it, and the session's start time since boot.
const SESSION_EXTENSION: &str = "session";

/// A new temporary directory; it is removed with its contents when this is dropped.
pub(super) struct Workspace {
    path: PathBuf,
    /// A lock that tells other servers on this machine that the directory is in use.
    _held: OwnedFd,
    /// The directory's owner, if the program gets a dedicated user.
    user: Option<u32>,
}

impl Workspace {
    pub(super) fn new() -> io::Result<Self> {
        let prefix = format!(".{WORKSPACE_PREFIX}{}-", std::process::id());
        let new = tempfile::Builder::new().prefix(&prefix).tempdir()?.keep();
        let held = hold(&new)?;
        // From here on, whoever finds it and can lock it knows that nobody else uses it.
        let name = new.file_name().unwrap_or_default().to_string_lossy().trim_start_matches('.').to_owned();
        let path = new.with_file_name(name);
        fs::rename(&new, &path)?;
        let workspace = Workspace { path, _held: held, user: Privileges::get().next_user() };
        fs::set_permissions(&workspace.path, fs::Permissions::from_mode(0o700))?;
        if let Some(user) = workspace.user {
            chown(&workspace.path, Some(user), Some(user))?;
        }
        Ok(workspace)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Records the session that uses the directory. When a server is killed, its programs end too, but without
    /// namespaces the processes that they started do not: the keeper or the next server kills those.
    pub(super) fn note_session(&self, session: i32) -> io::Result<()> {
        let started = started_at(session).unwrap_or(0);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(self.path.with_extension(SESSION_EXTENSION))?.write_all(format!("{session} {started}").as_bytes())
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!("cannot remove `{}`: {error}", self.path.display());
        }
        // It only exists if a program was started.
        let _ = fs::remove_file(self.path.with_extension(SESSION_EXTENSION));
    }
}

/// The start time of a process, in ticks since boot.
fn started_at(process: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// How long to wait for a session's remaining processes to end.
const SESSION_ENDS: Duration = Duration::from_secs(5);

/// Kills the remaining processes of the session that used a directory. A session id cannot be reused while it has
/// processes; their sandbox shows that it is still the same session.
fn end_session(workspace: &Path) {
    let note = workspace.with_extension(SESSION_EXTENSION);
    if !fs::symlink_metadata(&note).is_ok_and(|meta| meta.is_file() && meta.uid() == Privileges::get().user) {
        return;
    }
    let note = fs::read_to_string(note).unwrap_or_default();
    let Some((session, since)) = note.split_once(' ') else { return };
    let (Ok(session), Ok(since)) = (session.parse::<i32>(), since.parse::<u64>()) else { return };
    let Some(group) = rustix::process::Pid::from_raw(session) else { return };
    let began = Instant::now();
    while has_members(session, since) && began.elapsed() < SESSION_ENDS {
        // No process can leave the group, which belongs to the session. A signal to the group also reaches processes
        // that are being forked.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a program's session has processes that have not ended.
fn has_members(session: i32, since: u64) -> bool {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).any(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_whitespace();
        let has_ended = fields.next().is_none_or(|state| matches!(state, "Z" | "X"));
        let is_member = fields.nth(2).and_then(|text| text.parse().ok()) == Some(session);
        // Only members are checked further: there may be many other processes.
        !has_ended && is_member && is_confined(pid) && started_at(pid).is_some_and(|started| started >= since)
    })
}

fn is_confined(process: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2'))
}

/// Locks a directory, unless it is already locked.
fn hold(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    Ok(directory)
}

/// Removes directories left by servers that were killed while a program ran.
pub(super) fn remove_stale() {
    remove_left(None);
}

/// The same for one server that has ended.
pub(super) fn remove_of(server: u32) {
    remove_left(Some(server));
}

fn remove_left(server: Option<u32>) {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let held_name = name.strip_prefix('.').unwrap_or(&name);
        let Some(rest) = held_name.strip_prefix(WORKSPACE_PREFIX) else { continue };
        let is_asked_for = server.is_some_and(|server| rest.starts_with(&format!("{server}-")));
        if server.is_some() && !is_asked_for {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        // Do not touch, let alone follow, anything with such a name that somebody else created.
        let ours = meta.uid() == Privileges::get().user || (USER_FIRST..USER_FIRST + USERS).contains(&meta.uid());
        let is_new = name.starts_with('.');
        let old = meta.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= STALE_AGE));
        if meta.is_dir()
            && ours
            && (!is_new || is_asked_for || old)
            && let Ok(_held) = hold(&entry.path())
        {
            end_session(&entry.path());
            let removed = remove(&entry.path());
            let _ = fs::remove_file(entry.path().with_extension(SESSION_EXTENSION));
            tracing::info!("removed `{}` of a server that was killed: {removed:?}", entry.path().display());
        }
    }
}

/// Removes a directory with possibly hostile contents: paths stay short at any depth, and directories without
/// permissions are made accessible. All processes that could change it have ended.
fn remove(root: &Path) -> io::Result<()> {
    let mut moved = 0_u64;
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            // Moving a directory requires write permission on it.
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700))?;
            let flat = loop {
                let candidate = root.with_extension(format!("rm{moved}"));
                moved += 1;
                if !candidate.exists() {
                    break candidate;
                }
            };
            fs::rename(entry.path(), &flat)?;
            directories.push(flat);
        }
        fs::remove_dir(&directory)?;
    }
    Ok(())
}

/// How much a program may have in its directory at any time.
pub(super) const DISK_BYTES_MAX: u64 = 256 << 20;
pub(super) const DISK_ENTRIES_MAX: usize = 10_000;
/// Nesting of directories: the deeper they are nested, the more each check costs.
pub(super) const DISK_DEPTH_MAX: usize = 64;

/// Whether a directory exceeds the limits, including files that are deleted but still use disk space.
pub(super) fn is_overfull(root: &Path, unlinked_bytes: u64) -> bool {
    let (mut bytes, mut entries) = (unlinked_bytes, 0);
    if bytes > DISK_BYTES_MAX {
        return true;
    }
    let mut directories = vec![(root.to_owned(), 0)];
    while let Some((directory, depth)) = directories.pop() {
        // An entry that is being removed at this moment may be missing.
        let Ok(list) = fs::read_dir(directory) else { continue };
        for entry in list.flatten() {
            entries += 1;
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => directories.push((entry.path(), depth + 1)),
                Ok(meta) => bytes += meta.len(),
                Err(_) => {}
            }
            if entries > DISK_ENTRIES_MAX || bytes > DISK_BYTES_MAX || depth >= DISK_DEPTH_MAX {
                return true;
            }
        }
    }
    false
}

/// How many unread bytes the kernel may buffer for one socket of a pair: the sender may continue until the buffer size
/// is reached and then finishes its current chunk, which is at most half of that size.
fn socket_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/net/core/wmem_default").unwrap_or_default();
        text.trim().parse().unwrap_or(256 << 10) * 3 / 2
    })
}

/// The resources that a run currently uses.
#[derive(Default)]
pub(super) struct Load {
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    /// Deleted files that are still open or mapped.
    pub(super) unlinked_bytes: u64,
}

/// The load of all processes of a session, whose directory is `root`. Processes cannot leave the session (seccomp), so
/// none is missed.
pub(super) fn load(session: i32, root: &Path) -> Load {
    let mut load = Load::default();
    let Ok(processes) = fs::read_dir("/proc") else { return load };
    let (mut unlinked, mut sockets) = (HashMap::new(), HashSet::new());
    for process in processes.flatten() {
        if !process.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let path = process.path();
        let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
        // The name, in parentheses, may contain anything; the session is the fourth field after it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        if fields.split_whitespace().nth(3).and_then(|text| text.parse().ok()) != Some(session) {
            continue;
        }
        load.processes += 1;
        note_open(&path, &mut unlinked, &mut sockets);
        note_mapped(&path, root, &mut unlinked);
        let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
        for line in status.lines() {
            if let Some(value) = line.strip_prefix("RssAnon:").or_else(|| line.strip_prefix("RssShmem:")) {
                let kib: u64 = value.trim().trim_end_matches(" kB").parse().unwrap_or(0);
                load.memory_bytes += kib * 1024;
            }
        }
    }
    load.unlinked_bytes = unlinked.into_values().sum();
    load.memory_bytes += sockets.len() as u64 * socket_bytes();
    load
}

/// Records, by inode, the bytes of deleted files that a process has open, and its sockets. Skips what cannot be read
/// (the server may lack the permission).
fn note_open(process: &Path, unlinked: &mut HashMap<u64, u64>, sockets: &mut HashSet<u64>) {
    for descriptor in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let Ok(meta) = fs::metadata(descriptor.path()) else { continue };
        if meta.is_file() && meta.nlink() == 0 {
            unlinked.insert(meta.ino(), meta.len());
        } else if meta.file_type().is_socket() {
            sockets.insert(meta.ino());
        }
    }
}

/// Records deleted files that it has mapped; only those below `root`, because it cannot write elsewhere.
fn note_mapped(process: &Path, root: &Path, unlinked: &mut HashMap<u64, u64>) {
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    for line in maps.split(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b" (deleted)")) {
        // Addresses, rights, offset, device, inode, path.
        let line = String::from_utf8_lossy(line);
        let mut fields = line.split_ascii_whitespace();
        let addresses = fields.next().and_then(|range| range.split_once('-'));
        let (inode, path) = (fields.nth(3).and_then(|inode| inode.parse().ok()), fields.next());
        if let (Some((start, end)), Some(inode), Some(path)) = (addresses, inode, path)
            && Path::new(path).starts_with(root)
        {
            let address = |text| u64::from_str_radix(text, 16).unwrap_or(0);
            let bytes = unlinked.entry(inode).or_default();
            *bytes = (*bytes).max(address(end).saturating_sub(address(start)));
        }
    }
}

/// Prepares the child's plan. `namespaces` tells whether to try to use namespaces.
pub(super) fn plan(
    grant: &ProcessGrant,
    args: &[String],
    env: &[(String, String)],
    timeout: Duration,
    workspace: &Workspace,
    namespaces: bool,
) -> io::Result<Plan> {
    let privileges = Privileges::get();
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::other("a string contains NUL"));
    let own_namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
    let (namespaces, maps) = match (namespaces, privileges.root) {
        (false, _) => (0, Vec::new()),
        (true, true) => (own_namespaces, Vec::new()),
        (true, false) => (own_namespaces | libc::CLONE_NEWUSER, privileges.maps()?),
    };
    let mut limits = vec![
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_CPU, timeout.as_secs().saturating_add(2)),
        (libc::RLIMIT_FSIZE, FILE_BYTES_MAX),
        (libc::RLIMIT_NOFILE, OPEN_FILES_MAX),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_DATA, grant.memory_bytes as u64),
        (libc::RLIMIT_AS, (grant.memory_bytes as u64).saturating_add(ADDRESSES_BEYOND)),
    ];
    // The kernel counts per user: with the server's user, the server's threads would count as well.
    if workspace.user.is_some() || namespaces & libc::CLONE_NEWUSER != 0 {
        limits.push((libc::RLIMIT_NPROC, PROCESSES_MAX));
    }
    let mut variables: BTreeMap<&str, &str> =
        grant.env.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))).collect();
    variables.extend(env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let program = text(grant.program.as_os_str().as_bytes())?;
    Ok(Plan {
        namespaces,
        maps,
        directory: text(workspace.path.as_os_str().as_bytes())?,
        limits: limits.into_iter().map(|(resource, most)| (i64::from(resource), most)).collect(),
        user: workspace.user,
        ruleset: ruleset(&grant.program, &workspace.path).map_err(io::Error::other)?,
        filter: filter(namespaces != 0, privileges.sees_descriptors(&grant.program)),
        args: std::iter::once(Ok(program.clone()))
            .chain(args.iter().map(|arg| text(arg.as_bytes())))
            .collect::<io::Result<_>>()?,
        env: variables
            .into_iter()
            .map(|(name, value)| text(format!("{name}={value}").as_bytes()))
            .collect::<io::Result<_>>()?,
        program,
    })
}

/// `None`: this kernel has no Landlock.
fn ruleset(program: &Path, workspace: &Path) -> Result<Option<OwnedFd>, RulesetError> {
    let abi = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut run = vec![program.to_owned()];
    // A script needs its interpreter, and both may need a loader.
    run.extend(interpreter(program));
    run.extend(run.clone().iter().filter_map(|path| loader(path)));
    let inside: BitFlags<AccessFs> =
        AccessFs::from_all(abi) & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(run, AccessFs::Execute | AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(LIBRARIES, read))?
        .add_rules(path_beneath_rules(DEVICES_READ, AccessFs::ReadFile))?
        .add_rules(path_beneath_rules(["/dev/null"], AccessFs::ReadFile | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules([workspace], inside))?;
    let ruleset: Option<OwnedFd> = ruleset.into();
    if ruleset.is_none() {
        static SAID: OnceLock<()> = OnceLock::new();
        SAID.get_or_init(|| tracing::warn!("this kernel has no Landlock: programs of hooks may read files of others"));
    }
    Ok(ruleset)
}

/// The interpreter that a script names in its first line.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut line = Vec::new();
    BufReader::new(File::open(path).ok()?).take(256).read_until(b'\n', &mut line).ok()?;
    let name = line.strip_prefix(b"#!")?.trim_ascii();
    let name = name.split(u8::is_ascii_whitespace).next()?;
    let path = PathBuf::from(OsString::from_vec(name.to_vec()));
    path.is_absolute().then_some(path)
}

/// The loader that a 64-bit ELF program names (`PT_INTERP`).
fn loader(path: &Path) -> Option<PathBuf> {
    const INTERP: u32 = 3;
    let mut file = File::open(path).ok()?;
    let mut header = [0; 64];
    file.read_exact(&mut header).ok()?;
    if &header[..6] != b"\x7fELF\x02\x01" {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let (table, size, count) = (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]));
    for index in 0..count.min(64) {
        let mut entry = [0; 56];
        file.seek(SeekFrom::Start(table.checked_add(index * size)?)).ok()?;
        file.read_exact(&mut entry).ok()?;
        if number(&entry[..4]) == u64::from(INTERP) {
            let mut name = vec![0; number(&entry[32..40]).min(4096) as usize];
            file.seek(SeekFrom::Start(number(&entry[8..16]))).ok()?;
            file.read_exact(&mut name).ok()?;
            name.truncate(name.iter().position(|byte| *byte == 0)?);
            return Some(OsString::from_vec(name).into());
        }
    }
    None
}

/// System calls that fail with "not permitted": those that could leave or outlive the process group, and those that
/// data-processing programs do not need but kernel exploits do. `pairs` tells whether socket pairs can be counted.
fn filter(namespaces: bool, pairs: bool) -> Vec<libc::sock_filter> {
    let filter = Filter::new()
        .refuse(&[libc::SYS_setsid, libc::SYS_setpgid])
        // Otherwise it could outlive the server or hide its open files.
        .refuse_only(libc::SYS_prctl, 0, &[libc::PR_SET_PDEATHSIG as u32, libc::PR_SET_DUMPABLE as u32])
        .refuse_with(libc::SYS_clone, 0, NAMESPACES)
        // Its flags are in memory, which a filter cannot inspect; C libraries then use `clone`.
        .unknown(libc::SYS_clone3)
        // Runtimes use socket pairs to wake themselves. Unread data counts while the program runs, up to the kernel's
        // default buffer size, which the program cannot raise.
        .require(libc::SYS_socketpair, 0, &[libc::AF_UNIX as u32])
        .allow_only(libc::SYS_socketpair, 1, if pairs { &STREAMS } else { &[] })
        .refuse_only(libc::SYS_setsockopt, 2, &[libc::SO_SNDBUF as u32, libc::SO_SNDBUFFORCE as u32])
        .refuse(BEYOND_A_PAIR)
        .refuse(UNCOUNTED)
        .refuse(KERNEL);
    if namespaces {
        return filter.otherwise_allow();
    }
    // Without a namespace it would see every process of its user, which may be the server's user.
    let at_self = [
        libc::SYS_kill,
        libc::SYS_prlimit64,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
    ];
    // The first argument of these is a process; 0 stands for the caller or its group.
    let filter = at_self.into_iter().fold(filter, |filter, call| filter.allow_only(call, 0, &[0]));
    filter
        .refuse(&[
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_send_signal,
            libc::SYS_setpriority,
            libc::SYS_ioprio_set,
            libc::SYS_migrate_pages,
            libc::SYS_move_pages,
        ])
        .otherwise_allow()
}

/// Flags of `clone`; in its own user namespace a program has every capability that the kernel knows.
const NAMESPACES: u32 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP) as u32;

/// Memory that belongs to no process: nothing counts it, and some of it stays after all processes have ended.
const UNCOUNTED: &[libc::c_long] = &[
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    // Landlock only covers TCP, and Unix sockets with a path work across namespaces.
    libc::SYS_socket,
    libc::SYS_io_setup,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Calls on socket pairs that could connect to other sockets, or that send a descriptor into a socket, where no list of
/// open descriptors shows it.
const BEYOND_A_PAIR: &[libc::c_long] =
    &[libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_sendmsg, libc::SYS_sendmmsg];

/// Allowed types of socket pairs: streams. Datagram pairs can be reconnected, to a socket with a path.
const STREAMS: [u32; 4] = [
    libc::SOCK_STREAM as u32,
    (libc::SOCK_STREAM | libc::SOCK_CLOEXEC) as u32,
    (libc::SOCK_STREAM | libc::SOCK_NONBLOCK) as u32,
    (libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u32,
];

/// Namespaces and file systems, other processes, and the kernel itself.
const KERNEL: &[libc::c_long] = &[
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
];

/// The server's own privileges.
struct Privileges {
    root: bool,
    user: u32,
    group: u32,
    /// Whether the server can switch to the users from [`USER_FIRST`] on.
    users: bool,
    /// Whether it may inspect processes of other users (CAP_SYS_PTRACE).
    looks: bool,
}

impl Privileges {
    fn get() -> &'static Privileges {
        static PRIVILEGES: OnceLock<Privileges> = OnceLock::new();
        PRIVILEGES.get_or_init(|| {
            /// CAP_CHOWN, CAP_SETGID, CAP_SETUID, and CAP_FOWNER and CAP_DAC_OVERRIDE to clean up after.
            const NEEDED: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 6 | 1 << 7;
            let root = rustix::process::geteuid().is_root();
            let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
            let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
            let effective = effective.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
            let mapped = |path: &str| {
                fs::read_to_string(path).unwrap_or_default().lines().any(|line| {
                    let mut numbers = line.split_whitespace().filter_map(|text| text.parse::<u64>().ok());
                    let (first, _, count) = (numbers.next(), numbers.next(), numbers.next());
                    first.zip(count).is_some_and(|(first, count)| {
                        first <= u64::from(USER_FIRST) && first + count >= u64::from(USER_FIRST + USERS)
                    })
                })
            };
            Privileges {
                root,
                user: rustix::process::geteuid().as_raw(),
                group: rustix::process::getegid().as_raw(),
                users: root
                    && effective & NEEDED == NEEDED
                    && mapped("/proc/self/uid_map")
                    && mapped("/proc/self/gid_map"),
                looks: effective & 1 << 19 != 0,
            }
        })
    }

    /// Whether the server can see a program's open files: for a dedicated user only with a capability, and for the
    /// server's own user unless the program's file is executable but not readable.
    fn sees_descriptors(&self, program: &Path) -> bool {
        self.looks || !self.users && File::open(program).is_ok()
    }

    /// A user id that no other program currently has: it cycles through sixteen million ids, starting where other
    /// servers on this machine are unlikely to be.
    fn next_user(&self) -> Option<u32> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = std::process::id().wrapping_mul(0x9e37_79b1);
        self.users.then(|| USER_FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % USERS)
    }

    /// The maps of a user namespace in which the server's user is the only one.
    fn maps(&self) -> io::Result<Vec<(CString, CString)>> {
        let line = |number: u32| format!("{number} {number} 1");
        [
            ("/proc/self/setgroups", "deny".to_owned()),
            ("/proc/self/uid_map", line(self.user)),
            ("/proc/self/gid_map", line(self.group)),
        ]
        .into_iter()
        .map(|(path, text)| Ok((CString::new(path)?, CString::new(text)?)))
        .collect()
    }
}

const _: () = assert!(USER_FIRST.checked_add(USERS).is_some());

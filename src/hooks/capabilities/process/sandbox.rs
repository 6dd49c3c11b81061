//! What keeps a program in bounds on Linux, laid out before it starts.
//!
//! - **Landlock**: it may read and run itself, its loader and its libraries, and use its temporary directory; no other
//!   file, no TCP, no signal to processes outside.
//! - **Namespaces** of its own for processes, network and IPC: killing the program kills all that it started, and no
//!   network is there. As root directly, else through a user namespace, where the system allows either.
//! - **A user of its own** if the server is root: a number that nobody else has, so that the limit on processes counts
//!   only these and nothing else can be signalled.
//! - **Seccomp**: it cannot leave its process group, by which it is ended, nor open sockets (but pairs, which lead nowhere else)
//!   or memory that nothing counts, nor call what only widens the attack surface. Without namespaces it cannot signal other processes either.
//! - **Limits**: memory, time on a core, size of files, open files, processes, no core dump.
//!
//! Where a kernel or a container lacks one of them the others still hold.

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
/// Address space beyond the granted memory: code, libraries, and what runtimes reserve but never touch, which can be
/// tens of gigabytes. What is touched is counted while the program runs.
const ADDRESSES_BEYOND: u64 = 64 << 30;

/// Where libraries are; what does not exist is left out.
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

/// First of the user numbers for programs; far from those that systems hand out.
const USER_FIRST: u32 = 0x7000_0000;
const USERS: u32 = 1 << 24;

/// How the temporary directories are called; the number of the server's process follows.
const WORKSPACE_PREFIX: &str = "snaphook-process-";

/// Until they are held, a point stands before that. One that is as old as this was left by a server that was killed.
const STALE_AGE: Duration = Duration::from_secs(60);

/// Beside a directory: the session whose processes use it, and the time since boot at which it began.
const SESSION_EXTENSION: &str = "session";

/// A fresh temporary directory; removed with all that is in it when dropped.
pub(super) struct Workspace {
    path: PathBuf,
    /// Says to other servers on this machine that it is in use.
    _held: OwnedFd,
    /// The user that it belongs to, if the program gets one of its own.
    user: Option<u32>,
}

impl Workspace {
    pub(super) fn new() -> io::Result<Self> {
        let prefix = format!(".{WORKSPACE_PREFIX}{}-", std::process::id());
        let new = tempfile::Builder::new().prefix(&prefix).tempdir()?.keep();
        let held = hold(&new)?;
        // From here on whoever finds it and can hold it knows that nobody else does.
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

    /// Notes whose it is. A server that is killed takes its programs along, but not what those started where there are no
    /// namespaces: its keeper ends them, or the next server.
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
        // There is one only if a program was started.
        let _ = fs::remove_file(self.path.with_extension(SESSION_EXTENSION));
    }
}

/// Ticks after boot at which a process began.
fn started_at(process: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// How long the end of what is left of a session is waited for.
const SESSION_ENDS: Duration = Duration::from_secs(5);

/// Ends what is left of the session that used a directory. A session's number is nobody else's while it has processes; that
/// they are confined as programs are says that it is still the same.
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
        // Nobody can leave the group, which is the session's own. A signal to it reaches also those that are being forked.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a session of programs has processes that have not ended.
fn has_members(session: i32, since: u64) -> bool {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).any(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let mut fields = fields.split_whitespace();
        let has_ended = fields.next().is_none_or(|state| matches!(state, "Z" | "X"));
        let is_member = fields.nth(2).and_then(|text| text.parse().ok()) == Some(session);
        // Only of members more is looked at: there may be many others.
        !has_ended && is_member && is_confined(pid) && started_at(pid).is_some_and(|started| started >= since)
    })
}

fn is_confined(process: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2'))
}

/// Takes a directory, unless somebody has it.
fn hold(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive)?;
    Ok(directory)
}

/// Removes the directories that servers left which were killed while a program ran.
pub(super) fn remove_stale() {
    remove_left(None);
}

/// The same for one server, which has ended.
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
        // What somebody else made with such a name is not ours to touch, least of all to follow.
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

/// Removes a directory that somebody may have filled with ill will: however deep it is, paths stay short, and
/// directories that their owner closed are opened. Whoever could change it meanwhile has ended.
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
            // A directory can be moved only by who may write to it.
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

/// What a program may leave in its directory at any moment.
pub(super) const DISK_BYTES_MAX: u64 = 256 << 20;
pub(super) const DISK_ENTRIES_MAX: usize = 10_000;
/// Folders within folders: each look at what is deep inside costs the more the deeper it is.
pub(super) const DISK_DEPTH_MAX: usize = 64;

/// Whether a directory holds more than a program may leave in it, with what is on the disk but in no directory any more.
pub(super) fn is_overfull(root: &Path, unlinked_bytes: u64) -> bool {
    let (mut bytes, mut entries) = (unlinked_bytes, 0);
    if bytes > DISK_BYTES_MAX {
        return true;
    }
    let mut directories = vec![(root.to_owned(), 0)];
    while let Some((directory, depth)) = directories.pop() {
        // What is being removed at this moment is not there.
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

/// What the kernel may keep of what was sent through one socket of a pair and was not read: it lets the sender go on until as
/// much is under way, and then finishes the piece at hand, which is at most half of that.
fn socket_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let text = fs::read_to_string("/proc/sys/net/core/wmem_default").unwrap_or_default();
        text.trim().parse().unwrap_or(256 << 10) * 3 / 2
    })
}

/// What a run uses at a moment.
#[derive(Default)]
pub(super) struct Load {
    pub(super) memory_bytes: u64,
    pub(super) processes: u64,
    /// Files that were removed while somebody has them open or mapped.
    pub(super) unlinked_bytes: u64,
}

/// Of all processes of a session, whose directory is `root`. The session cannot be left (seccomp), so nothing is missed.
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
        // The name, in parentheses, may hold anything; the session is the fourth field after it.
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

/// Notes by inode the bytes of removed files that a process has open, and its sockets. What cannot be read (the server may
/// lack the right) is left out.
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

/// Notes those that it has mapped, from `root` only, since nothing else can be written.
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

/// What the child shall do. `namespaces`: whether to try for namespaces of its own.
pub(super) fn plan(
    grant: &ProcessGrant,
    args: &[String],
    env: &[(String, String)],
    timeout: Duration,
    workspace: &Workspace,
    namespaces: bool,
) -> io::Result<Plan> {
    let privileges = Privileges::get();
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::other("a text holds NUL"));
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
    // The kernel counts per user: with the server's own, its threads would count as well.
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
    // A script needs its interpreter, and each of them its loader.
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

/// System calls that fail with "not permitted": those that leave the process group or outlive it, and those that programs
/// which turn data into data do not need but attacks on kernels do.
/// `pairs`: whether pairs of sockets can be counted.
fn filter(namespaces: bool, pairs: bool) -> Vec<libc::sock_filter> {
    let filter = Filter::new()
        .refuse(&[libc::SYS_setsid, libc::SYS_setpgid])
        // It would outlive the server, or hide what it has open.
        .refuse_only(libc::SYS_prctl, 0, &[libc::PR_SET_PDEATHSIG as u32, libc::PR_SET_DUMPABLE as u32])
        .refuse_with(libc::SYS_clone, 0, NAMESPACES)
        // What its flags are stands in memory, which no filter sees: C libraries use `clone` then.
        .unknown(libc::SYS_clone3)
        // Runtimes wake themselves by pairs. What is sent into one and not read counts while the program runs, as much as
        // the kernel keeps by default: more cannot be asked for.
        .require(libc::SYS_socketpair, 0, &[libc::AF_UNIX as u32])
        .allow_only(libc::SYS_socketpair, 1, if pairs { &STREAMS } else { &[] })
        .refuse_only(libc::SYS_setsockopt, 2, &[libc::SO_SNDBUF as u32, libc::SO_SNDBUFFORCE as u32])
        .refuse(BEYOND_A_PAIR)
        .refuse(UNCOUNTED)
        .refuse(KERNEL);
    if namespaces {
        return filter.otherwise_allow();
    }
    // Without a namespace of its own it would see every process of its user, which can be the server's.
    let at_self = [
        libc::SYS_kill,
        libc::SYS_prlimit64,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setattr,
    ];
    // Of these the first argument says which process, and 0 is its own, or its own group.
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

/// Flags of `clone`; in a user namespace of its own a program has every right that the kernel knows.
const NAMESPACES: u32 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP) as u32;

/// Memory that is no process's: nobody counts it, and some of it stays when all processes have ended.
const UNCOUNTED: &[libc::c_long] = &[
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
    // Landlock knows only TCP, and sockets with a path lead out of every namespace.
    libc::SYS_socket,
    libc::SYS_io_setup,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Of a pair of sockets, what finds or is found by another socket, and what puts a descriptor into it, where no list of
/// descriptors has it any more.
const BEYOND_A_PAIR: &[libc::c_long] =
    &[libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_sendmsg, libc::SYS_sendmmsg];

/// Kinds of a pair of sockets: streams. Pairs of datagrams can be connected anew, to what has a path.
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

/// What the server itself may do.
struct Privileges {
    root: bool,
    user: u32,
    group: u32,
    /// Whether root may become the users from [`USER_FIRST`] on.
    users: bool,
    /// Whether it may look at processes of other users (CAP_SYS_PTRACE).
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

    /// Whether the server can see what a program has open: of a user of its own only with a right, and of the server's own user
    /// unless the program's file may be executed but not read.
    fn sees_descriptors(&self, program: &Path) -> bool {
        self.looks || !self.users && File::open(program).is_ok()
    }

    /// A number that no other program has at this moment: sixteen million go round, starting where no other server of
    /// this machine is likely to be.
    fn next_user(&self) -> Option<u32> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let start = std::process::id().wrapping_mul(0x9e37_79b1);
        self.users.then(|| USER_FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % USERS)
    }

    /// A user namespace in which the server's own user is the only one.
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

//! Real programs: what a grant opens, and what a program cannot do, take along or leave behind.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Processes, arg_matches, grant_value};
use crate::config::{Phase, ProcessGrant};
use crate::hooks::access::{AccessCode, AccessError};
use crate::hooks::session::{ProcessCommand, ProcessOutput, Session};
use crate::hooks::testing::{Bench, access_error, rerun, skip};

/// This test is the keeper, when the server's side starts it as one.
pub(super) const KEEPER_TEST: &str = "hooks::capabilities::process::tests::keeper_process";
pub(super) const KEEPER: &str = "SNAPHOOK_KEEPER";

#[test]
fn keeper_process() {
    if std::env::var_os(KEEPER).is_some() {
        super::keeper::serve();
    }
}

/// A folder that programs without rights can reach.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Folder(folder)
    }

    /// A shell script; only what is built into the shell works in it, since it may start no other program.
    fn script(&self, text: &str) -> PathBuf {
        let path = self.path().join("program");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn path(&self) -> PathBuf {
        fs::canonicalize(self.0.path()).unwrap()
    }
}

fn command(program: &Path, args: &[&str]) -> ProcessCommand {
    ProcessCommand {
        program: program.to_str().unwrap().to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        stdin: Vec::new(),
        env: Vec::new(),
        timeout: None,
    }
}

/// A session that may run `program` with `args`, and `more` of the grant's keys.
fn session(program: &Path, args: &str, more: &str) -> Arc<Session> {
    let lines = format!("process = [{{ program = '{}', args = [{args}]{more} }}]", program.display());
    Bench::new().session("invoice", Phase::PostCreate, "mail", &lines)
}

async fn run(session: &Session, command: ProcessCommand) -> Result<ProcessOutput, AccessError> {
    session.process_run(command).await.map_err(access_error)
}

/// Runs a script without arguments under a grant.
async fn run_script(text: &str, more: &str) -> (Folder, Result<ProcessOutput, AccessError>) {
    let folder = Folder::new();
    let program = folder.script(text);
    let result = run(&session(&program, "", more), command(&program, &[])).await;
    (folder, result)
}

#[track_caller]
fn text(result: Result<ProcessOutput, AccessError>) -> String {
    let output = result.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.code, 0, "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Processes whose command line holds `part`.
fn processes_with(part: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(part))
        .count()
}

/// What is left is given a moment to disappear from the list.
#[track_caller]
fn nothing_is_left_of(program: &str) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while processes_with(program) > 0 {
        assert!(Instant::now() < deadline, "{} processes of `{program}` are left", processes_with(program));
        std::thread::yield_now();
    }
}

/// Python, if this machine has it: with it a program can try more than with a shell.
fn python() -> Option<PathBuf> {
    let found = ["/usr/bin/python3", "/usr/local/bin/python3"].iter().find_map(|path| fs::canonicalize(path).ok());
    if found.is_none() {
        skip("programs that try what a shell cannot", "no python3 in /usr/bin or /usr/local/bin");
    }
    found
}

async fn run_python(source: &str, more: &str) -> Option<Result<ProcessOutput, AccessError>> {
    let python = python()?;
    let session = session(&python, "'-I', '-'", more);
    let command = ProcessCommand { stdin: source.as_bytes().to_vec(), ..command(&python, &["-I", "-"]) };
    Some(run(&session, command).await)
}

#[tokio::test]
async fn a_granted_program_gets_its_arguments_and_input() {
    let folder = Folder::new();
    let program = folder.script(r#"read line; printf '%s|' "$0" "$@" "$line"; echo oops >&2; exit 3"#);
    let session = session(&program, "'-x', '*', 'a*'", "");
    let command = ProcessCommand { stdin: b"input\n".to_vec(), ..command(&program, &["-x", "b c", "a\"$(id)`"]) };
    let output = run(&session, command).await.unwrap();
    let expected = format!("{}|-x|b c|a\"$(id)`|input|", program.display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!((output.code, output.stderr.as_slice()), (3, &b"oops\n"[..]));
}

#[tokio::test]
async fn no_shell_reads_the_arguments() {
    let folder = Folder::new();
    let victim = folder.path().join("victim");
    fs::write(&victim, "").unwrap();
    let program = folder.script(r#"printf '%s' "$1""#);
    let session = session(&program, "'*'", "");
    for arg in [
        format!("; rm {}", victim.display()),
        format!("$(rm {})", victim.display()),
        format!("`rm {}`", victim.display()),
        format!("x\nrm {}", victim.display()),
        "| cat".to_owned(),
        "&& true".to_owned(),
        "*".to_owned(),
    ] {
        assert_eq!(text(run(&session, command(&program, &[&arg])).await), arg);
    }
    assert!(victim.exists());
}

#[tokio::test]
async fn refusals_and_the_lines_that_open() {
    let folder = Folder::new();
    let program = folder.script("echo $1$TITLE");
    let wanted = ProcessCommand { env: vec![("TITLE".into(), "x".into())], ..command(&program, &["it's", "-q"]) };
    let message =
        run(&Bench::new().session("invoice", Phase::PostCreate, "mail", ""), wanted.clone()).await.unwrap_err().message;
    let opened = Bench::new().session_after(&message, "invoice", Phase::PostCreate, "mail");
    assert_eq!(text(run(&opened, wanted).await), "it'sx\n");

    let session = session(&program, "'a*', '-q'", ", env = { LANG = 'C' }");
    for (refused, why) in [
        (command(&program, &["a"]), "too few"),
        (command(&program, &["a", "-q", "b"]), "too many"),
        (command(&program, &["b", "-q"]), "another text"),
        (command(&program, &["a", "-Q"]), "another option"),
        (command(&program, &["a/../../x", "-q"]), "a way up"),
        (command(&folder.path().join("../x/program"), &["a", "-q"]), "another program"),
        (command(Path::new("program"), &["a", "-q"]), "a relative path"),
        (command(Path::new("/bin/sh"), &["a", "-q"]), "a shell"),
        (
            ProcessCommand { env: vec![("LD_PRELOAD".into(), "x".into())], ..command(&program, &["a", "-q"]) },
            "a variable",
        ),
        (ProcessCommand { env: vec![("LANG".into(), "x".into())], ..command(&program, &["a", "-q"]) }, "a fixed one"),
    ] {
        let error = run(&session, refused).await.unwrap_err();
        assert_eq!(error.code, AccessCode::Denied, "{why}: {}", error.message);
    }
    let error = run(&session, command(&program, &["a\0b", "-q"])).await.unwrap_err();
    assert_eq!(error.code, AccessCode::Invalid);
    let pre = Bench::new().session("invoice", Phase::PreCreate, "check", "process = [{ program = '/bin/x' }]");
    let error = run(&pre, command(Path::new("/bin/x"), &[])).await.unwrap_err();
    assert!(error.message.contains("no grant can open `process` to phase preCreate"), "{}", error.message);
}

#[test]
fn arguments_match_in_meaning() {
    for (pattern, arg, expected) in [
        ("-layout", "-layout", true),
        ("*", "text", true),
        ("*", "", true),
        ("*", "-", true),
        ("*", "-rf", false),
        ("*", "--output=x", false),
        ("-*", "-rf", true),
        ("--size=*", "--size=3", true),
        ("--size=*", "--shape=3", false),
        ("*", "/etc/passwd", false),
        ("/data/*", "/data/x", true),
        ("/data/*", "/data/../etc/passwd", false),
        ("*", "../x", false),
        ("*", "a/..", false),
        ("*", "a\\..\\b", false),
        ("*", "a..b", true),
        ("../*", "../x", true),
        ("x", "y", false),
    ] {
        assert_eq!(arg_matches(pattern, arg), expected, "`{pattern}` on `{arg}`");
    }
    let long = ProcessCommand { ..command(Path::new("/bin/x"), &[&"ü".repeat(500)]) };
    assert!(grant_value(&long).len() < 200);
}

#[tokio::test]
async fn a_link_is_not_the_program() {
    let folder = Folder::new();
    let program = folder.script("echo ran");
    let link = folder.path().join("link");
    symlink(&program, &link).unwrap();
    let directory = folder.path().join("directory");
    symlink(folder.path(), &directory).unwrap();
    for path in [link, directory.join("program")] {
        let error = run(&session(&path, "", ""), command(&path, &[])).await.unwrap_err();
        assert_eq!(error.code, AccessCode::Denied);
        assert!(error.message.contains(&format!("grant the real path `{}`", program.display())), "{}", error.message);
    }
}

#[tokio::test]
async fn the_environment_is_what_the_grant_lists() {
    let env = fs::canonicalize("/usr/bin/env").unwrap();
    let with = |more: &str| session(&env, "", more);
    assert_eq!(text(run(&with(""), command(&env, &[])).await), "");
    let command = ProcessCommand { env: vec![("TITLE".into(), "a b".into())], ..command(&env, &[]) };
    let output = run(&with(", env = { LANG = 'C', TITLE = true, UNSET = true }"), command).await;
    assert_eq!(text(output), "LANG=C\nTITLE=a b\n");
}

#[tokio::test]
async fn no_open_file_of_the_server_is_passed_on() {
    let leaky = rustix::io::dup(fs::File::open("/etc/passwd").unwrap()).unwrap();
    let number = leaky.as_raw_fd();
    let (_folder, result) = run_script(&format!("if (: <&{number}) 2>/dev/null; then echo open; fi"), "").await;
    assert_eq!(text(result), "");
}

#[tokio::test]
async fn files_of_others_are_out_of_reach() {
    let folder = Folder::new();
    let open = folder.path().join("open");
    fs::write(&open, "secret").unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).unwrap();
    let program = folder.script(&format!(
        "for file in /etc/passwd /proc/self/environ {0}; do (read line < $file) 2>/dev/null && echo read $file; done\n\
         (echo x > {0}) 2>/dev/null && echo wrote\n(echo x > /tmp/snaphook-escape) 2>/dev/null && echo wrote tmp\n\
         /bin/ls 2>/dev/null && echo started\necho x > here && read line < here && echo own $line",
        open.display()
    ));
    assert_eq!(text(run(&session(&program, "", ""), command(&program, &[])).await), "own x\n");
    assert_eq!(fs::read_to_string(open).unwrap(), "secret");
}

#[tokio::test]
async fn its_directory_is_fresh_and_gone_after() {
    let (_folder, result) = run_script("echo * $(pwd)", "").await;
    let output = text(result);
    let directory = output.trim().strip_prefix("* ").expect("the directory is empty");
    assert!(directory.contains("snaphook-process-") && !Path::new(directory).exists(), "{directory}");
}

#[tokio::test]
async fn its_directory_is_bounded() {
    for source in [
        "import os, time\nfor n in range(100):\n  os.mkdir('d')\n  os.chdir('d')\ntime.sleep(60)",
        "import time\nfor n in range(3):\n  open(str(n), 'w').truncate(100 << 20)\ntime.sleep(60)",
        // Removed, but still open, and removed, closed and still mapped.
        "import os, time\nkept = []\nfor n in range(3):\n  kept.append(open('f', 'w'))\n  kept[-1].truncate(100 << 20)\n  \
         os.remove('f')\ntime.sleep(60)",
        "import mmap, os, time\nkept = []\nfor n in range(3):\n  with open('f', 'w+') as f:\n    f.truncate(100 << 20)\n    \
         kept.append(mmap.mmap(f.fileno(), 0))\n  os.remove('f')\ntime.sleep(60)",
    ] {
        let Some(result) = run_python(source, ", timeout = '20 s'").await else { return };
        let error = result.unwrap_err();
        assert!(error.message.contains("in its directory and was ended"), "{}", error.message);
    }
}

#[test]
fn a_directory_filled_with_ill_will_is_removed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "").unwrap();
    let workspace = super::sandbox::Workspace::new().unwrap();
    let root = workspace.path().to_owned();
    let deep = root.join("d/".repeat(500));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "").unwrap();
    symlink(outside.path(), deep.join("link")).unwrap();
    symlink(outside.path(), root.join("link")).unwrap();
    fs::set_permissions(root.join("d/d/d"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o500)).unwrap();
    drop(workspace);
    let name = root.file_name().unwrap().to_str().unwrap();
    let left = fs::read_dir(root.parent().unwrap()).unwrap().flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(name)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(outside.path().join("kept").exists());
}

#[test]
fn what_a_killed_server_left_is_removed_and_nothing_else() {
    let made = |name: &str| {
        let path = std::env::temp_dir().join(format!("snaphook-process-test-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("d/d")).unwrap();
        path
    };
    let new = |age: Duration| {
        let path = tempfile::Builder::new().prefix(".snaphook-process-").tempdir().unwrap().keep();
        fs::File::open(&path).unwrap().set_modified(std::time::SystemTime::now() - age).unwrap();
        path
    };
    let age = |path: &Path| {
        let past = std::time::SystemTime::now() - Duration::from_secs(3600);
        fs::File::open(path).unwrap().set_modified(past).unwrap();
    };
    let (stale, just_left) = (made("stale"), made("young"));
    let (old, young) = (new(Duration::from_secs(3600)), new(Duration::ZERO));
    let used = super::sandbox::Workspace::new().unwrap();
    age(&stale);
    age(used.path());
    super::sandbox::remove_stale();
    assert!(!stale.exists() && !just_left.exists() && !old.exists());
    assert!(young.exists() && used.path().exists());
    fs::remove_dir_all(young).unwrap();
}

/// Python's event loop wakes itself through a pair of sockets.
#[tokio::test]
async fn event_loops_work() {
    let source = "import asyncio\nasync def work(n):\n  await asyncio.sleep(0)\n  return await asyncio.to_thread(lambda: n * 2)\n\
                  async def main():\n  return sum(await asyncio.gather(*[work(n) for n in range(5)]))\nprint(asyncio.run(main()))";
    let Some(result) = run_python(source, "").await else { return };
    assert_eq!(text(result), "20\n");
}

/// What is sent into pairs of sockets and is not read is no process's memory, but counts.
#[tokio::test]
async fn pairs_of_sockets_count() {
    let fill = "import os, socket, time\nkept = []\nfor n in range(110):\n  a, b = socket.socketpair()\n  kept.append((a, b))\n  \
                for s in (a, b):\n    s.setblocking(False)\n    try:\n      while True: s.send(b'x' * 65536)\n    except BlockingIOError: pass\n";
    for source in [
        format!("{fill}time.sleep(60)"),
        // Over several processes, of which none has many.
        format!("import os\nfor n in range(3):\n  if os.fork() == 0: break\n{fill}time.sleep(60)")
            .replace("range(110)", "range(40)"),
    ] {
        let Some(result) = run_python(&source, ", memory = '64 MiB', timeout = '30 s'").await else { return };
        let error = result.unwrap_err();
        assert!(error.message.contains("used more than 64 MiB of memory"), "{}", error.message);
    }
    let Some(result) =
        run_python("import socket\na, b = socket.socketpair()\na.sendall(b'x')\nprint(b.recv(1))", "").await
    else {
        return;
    };
    assert_eq!(text(result), "b'x'\n");
}

#[tokio::test]
async fn output_is_bounded() {
    for script in ["while :; do echo xxxxxxxxxxxxxxxx; done", "while :; do echo xxxxxxxxxxxxxxxx >&2; done"] {
        let (folder, result) = run_script(script, ", output = '64 KiB'").await;
        let error = result.unwrap_err();
        assert_eq!(error.code, AccessCode::TooLarge);
        assert!(error.message.contains("wrote more than 64 KiB and was ended"), "{}", error.message);
        nothing_is_left_of(folder.path().to_str().unwrap());
    }
}

#[tokio::test]
async fn its_time_ends_all_its_processes() {
    let script = "(while :; do :; done) & (trap '' TERM HUP INT; while :; do :; done) & while :; do :; done";
    let started = Instant::now();
    let (folder, result) = run_script(script, ", timeout = '300 ms'").await;
    let error = result.unwrap_err();
    assert_eq!(error.code, AccessCode::Timeout);
    assert!(error.message.contains("ran longer than 300 ms and was ended"), "{}", error.message);
    assert!(started.elapsed() < Duration::from_secs(3));
    nothing_is_left_of(folder.path().to_str().unwrap());
}

#[tokio::test]
async fn what_it_leaves_in_the_background_ends_with_it() {
    let started = Instant::now();
    let (folder, result) = run_script("(while :; do :; done) & echo done", ", timeout = '10 s'").await;
    assert_eq!(text(result), "done\n");
    assert!(started.elapsed() < Duration::from_secs(5));
    nothing_is_left_of(folder.path().to_str().unwrap());
}

#[tokio::test]
async fn a_fork_bomb_burns_out() {
    let started = Instant::now();
    let (folder, result) = run_script("f() { f | f & }\nf\nwhile :; do :; done", ", timeout = '700 ms'").await;
    // Where the limit on processes cannot be set they are counted instead.
    assert!(matches!(result.unwrap_err().code, AccessCode::Timeout | AccessCode::TooLarge));
    assert!(started.elapsed() < Duration::from_secs(5));
    nothing_is_left_of(folder.path().to_str().unwrap());
}

#[tokio::test]
async fn a_run_that_is_given_up_leaves_nothing() {
    let folder = Folder::new();
    let program = folder.script("echo $$ > started\n(while :; do :; done) & while :; do :; done");
    let session = session(&program, "", ", timeout = '60 s'");
    let name = program.to_str().unwrap().to_owned();
    let task = tokio::spawn(async move { session.process_run(command(&program, &[])).await });
    let deadline = Instant::now() + Duration::from_secs(10);
    while processes_with(&name) < 2 {
        assert!(Instant::now() < deadline && !task.is_finished());
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    nothing_is_left_of(&name);
}

/// A server that starts a program and is killed.
#[tokio::test]
async fn a_server_that_dies_takes_its_programs_along() {
    const PROGRAM: &str = "SNAPHOOK_TEST_PROGRAM";
    if let Ok(program) = std::env::var(PROGRAM) {
        let program = Path::new(&program);
        let _ = session(program, "", ", timeout = '60 s'").process_run(command(program, &[])).await;
        return;
    }
    let folder = Folder::new();
    let program = folder.script("while :; do :; done");
    let name = program.to_str().unwrap();
    let test = "hooks::capabilities::process::tests::a_server_that_dies_takes_its_programs_along";
    let mut server = rerun(test, &[(PROGRAM, name)]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while processes_with(name) == 0 {
        assert!(Instant::now() < deadline && server.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    server.kill().unwrap();
    server.wait().unwrap();
    nothing_is_left_of(name);
}

#[tokio::test]
async fn memory_is_bounded_for_one_process_and_for_all() {
    let Some(result) = run_python("x = bytearray(200 << 20)", ", memory = '64 MiB'").await else { return };
    assert!(String::from_utf8_lossy(&result.unwrap().stderr).contains("MemoryError"));
    // Each within the limit, together beyond it.
    let many = "import os, time\nfor n in range(8):\n  if os.fork() == 0:\n    x = b'x' * (40 << 20)\n    time.sleep(60)\n\
                time.sleep(60)";
    let error = run_python(many, ", memory = '64 MiB', timeout = '20 s'").await.unwrap().unwrap_err();
    assert!(error.message.contains("used more than 64 MiB of memory and was ended"), "{}", error.message);
    // Shared memory is no way around.
    let shared =
        "import mmap, time\nm = mmap.mmap(-1, 200 << 20)\nfor n in range(0, 200 << 20, 4096): m[n] = 1\ntime.sleep(60)";
    let error = run_python(shared, ", memory = '64 MiB', timeout = '20 s'").await.unwrap().unwrap_err();
    assert!(error.message.contains("used more than 64 MiB"), "{}", error.message);
}

#[tokio::test]
async fn the_sandbox_holds() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let own = std::process::id();
    let source = format!(
        r#"
import os, socket, ctypes, signal, resource
def attempt(name, call):
    try:
        call()
        print("did", name)
    except BaseException as error:
        pass
def child(call):
    # A new process is no leader, so only the sandbox can refuse it a session.
    pid = os.fork()
    if pid == 0:
        try:
            call()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
attempt("setsid", lambda: child(os.setsid))
attempt("setpgid", lambda: child(os.setpgrp))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", {port}), 2))
attempt("bind", lambda: socket.socket().bind(("127.0.0.1", 0)) or socket.socket().listen())
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {port})))
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
attempt("memfd", lambda: os.memfd_create("m"))
attempt("shm", lambda: ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) >= 0 or 1 / 0)
attempt("kill", lambda: os.kill({own}, 0))
attempt("kill parent", lambda: os.getppid() == 0 and 1 / 0 or os.kill(os.getppid(), 0))
attempt("limits of the server", lambda: resource.prlimit({own}, resource.RLIMIT_NOFILE))
# A server that is root without the right to become another has programs that are the same.
attempt("root", lambda: os.getuid() == 0 and 1 / 0 or os.setuid(0))
attempt("list", lambda: os.listdir("/"))
attempt("home", lambda: os.listdir("/root"))
attempt("proc", lambda: os.listdir("/proc"))
attempt("limit", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)))
attempt("ptrace", lambda: ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0 or 1 / 0)
attempt("unshare", lambda: ctypes.CDLL(None).unshare(0x10000000) == 0 or 1 / 0)
attempt("exec", lambda: child(lambda: os.execv("/bin/ls", ["ls"])))
print("end")
"#
    );
    let Some(result) = run_python(&source, "").await else { return };
    assert_eq!(text(result), "end\n");

    // In a container that allows no namespaces, too.
    let Some(python) = python() else { return };
    let grant = ProcessGrant {
        program: python.clone(),
        args: vec!["-I".into(), "-".into()],
        env: std::collections::BTreeMap::new(),
        timeout: Duration::from_secs(20),
        memory_bytes: 256 << 20,
        output_bytes: 1 << 20,
    };
    let command = ProcessCommand { stdin: source.into_bytes(), ..command(&python, &["-I", "-"]) };
    let result = Processes::without_namespaces().run(0, &grant, command, grant.timeout).await;
    assert_eq!(text(result), "end\n");
}

#[tokio::test]
async fn exit_codes_and_failed_starts() {
    let (_folder, result) = run_script("exit 7", "").await;
    assert_eq!(result.unwrap().code, 7);
    if let Some(result) = run_python("import os; os.abort()", "").await {
        assert!(result.unwrap().code > 128);
    }
    let folder = Folder::new();
    let program = folder.path().join("none");
    let error = run(&session(&program, "", ""), command(&program, &[])).await.unwrap_err();
    assert_eq!(error.code, AccessCode::Failed);
    assert!(error.message.contains("No such file"), "{}", error.message);
    let program = folder.script("");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o644)).unwrap();
    let error = run(&session(&program, "", ""), command(&program, &[])).await.unwrap_err();
    assert!(error.message.contains("cannot be executed"), "{}", error.message);
}

#[tokio::test]
async fn input_that_nobody_reads_and_output_that_is_large_do_not_block() {
    let (_folder, result) = run_script("exit 0", "").await;
    result.unwrap();
    let folder = Folder::new();
    let program = folder.script("exit 0");
    let session = session(&program, "", "");
    let command = ProcessCommand { stdin: vec![b'x'; 4 << 20], ..command(&program, &[]) };
    assert_eq!(run(&session, command).await.unwrap().code, 0);
}

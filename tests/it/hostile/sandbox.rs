//! Programs that try to outlive the server, or to use resources that are not limited.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::support::{Server, ServerOptions, eventually, skip};
use crate::workbench::{bind_post, create, grant, once, open_model, react};

/// The attempts of a program in the sandbox, one word each; it prints those that succeeded.
const TRIES: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>
static void say(const char *what, long result) { if (result >= 0) printf("%s\n", what); }
static long clone_with(unsigned long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid(pid, 0, 0);
    return pid;
}
int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "stay")) {
        prctl(PR_SET_PDEATHSIG, 0);
        if (fork() == 0) { close(0); close(1); close(2); for (;;) pause(); }
        for (;;) pause();
    }
    if (count > 1 && !strcmp(words[1], "scatter")) {
        fclose(fopen("left", "w"));
        /* A daemon of a daemon, and one that is always another process. */
        if (fork() == 0) {
            if (fork() == 0) { close(0); close(1); close(2); for (;;) pause(); }
            if (fork() == 0) { close(0); close(1); close(2); for (;;) { usleep(2000); if (fork() > 0) _exit(0); } }
            _exit(0);
        }
        for (;;) pause();
    }
    say("pdeathsig", prctl(PR_SET_PDEATHSIG, 0));
    say("setsid", setsid());
    int pair[2], size = 1 << 20;
    say("pair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    say("pair of datagrams", socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    say("pair of packets", socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
    say("pair of TIPC", socketpair(AF_TIPC, SOCK_STREAM, 0, pair));
    say("room in a pair", setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
    say("room by force", setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size));
    struct iovec part = { "x", 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    struct mmsghdr messages = { message, 0 };
    say("descriptors in a pair", sendmsg(pair[0], &message, 0));
    say("many in a pair", sendmmsg(pair[0], &messages, 1, 0));
    struct sockaddr_un name = { AF_UNIX, "here" };
    say("bind", bind(pair[0], (struct sockaddr *)&name, sizeof name));
    say("listen", listen(pair[0], 1));
    say("send in a pair", send(pair[0], "x", 1, 0));
    say("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    say("msgget", msgget(IPC_PRIVATE, 0600 | IPC_CREAT));
    say("semget", semget(IPC_PRIVATE, 1, 0600 | IPC_CREAT));
    say("shmget", shmget(IPC_PRIVATE, 4096, 0600 | IPC_CREAT));
    say("mq_open", syscall(SYS_mq_open, "q", O_RDWR | O_CREAT, 0600, 0));
    say("memfd", memfd_create("x", 0));
    say("unshare", unshare(CLONE_NEWUSER));
    say("clone user", clone_with(CLONE_NEWUSER));
    say("clone net", clone_with(CLONE_NEWNET | CLONE_NEWUSER));
    say("clone ipc", clone_with(CLONE_NEWIPC));
    say("clone3", syscall(SYS_clone3, 0, 0) < 0 && errno == ENOSYS ? -1 : 0);
    say("fsopen", syscall(430, "tmpfs", 0));
    say("open_tree", syscall(428, AT_FDCWD, "/", 0));
    say("io_setup", syscall(SYS_io_setup, 8, calloc(1, 8)));
    say("io_uring", syscall(425, 8, calloc(1, 256)));
    say("bpf", syscall(SYS_bpf, 0, 0, 0));
    printf("fork %d\n", clone_with(0) > 0);
    return 0;
}
"#;

/// Compiles the program; prints a message and returns `None` if there is no compiler.
fn program(folder: &Path) -> Option<String> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("opened");
    let folder = fs::canonicalize(folder).expect("a path");
    let (source, program) = (folder.join("tries.c"), folder.join("tries"));
    fs::write(&source, TRIES).expect("written");
    match Command::new("cc").arg("-o").arg(&program).arg(&source).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            skip("a program in C", &format!("no C compiler `cc`: {error}"));
            return None;
        }
    }
    Some(program.display().to_string())
}

#[test]
fn a_program_gets_nothing_that_outlives_it_or_that_nobody_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = program(folder.path()) else { return };
    let process = format!("process = [{{ program = '{program}', args = [] }}]");
    let server = Server::start_with(once(grant("runner", "postCreate", &process)));
    let api = server.client();
    open_model(&api, "runner");
    bind_post(&api, "runner", &format!("return await run('{program}', [])"));
    let answer = react(&api, "runner", &json!({}));
    assert_eq!(answer["stdout"], "pair\nsend in a pair\nfork 1\n", "{answer}");
}

/// The running processes of a program.
fn running(program: &str) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let is_it = |process: &fs::DirEntry| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).starts_with(program)
    };
    processes.filter(is_it).map(|process| process.path()).collect()
}

/// No new server is needed: all programs of a killed server end at once, including their descendants, however detached,
/// with and without namespaces.
#[test]
fn programs_of_a_killed_server_end_by_themselves() {
    const WITH_ALL: &[&str] = &[];
    const WITHOUT_NAMESPACES: &[&str] = &["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = program(folder.path()) else { return };
    for by in [WITH_ALL, WITHOUT_NAMESPACES] {
        if by.first().is_some_and(|by| Command::new(by).arg("--version").output().is_err()) {
            skip("a server without namespaces", "no `setpriv` to take the right from it");
            continue;
        }
        let process = format!("timeout = '60 s'\nprocess = [{{ program = '{program}', args = ['scatter'] }}]");
        let mut server = Server::start_with(ServerOptions { by, ..once(grant("runner", "postCreate", &process)) });
        let api = server.client();
        open_model(&api, "runner");
        bind_post(&api, "runner", &format!("return await run('{program}', ['scatter'])"));
        create(&api, "runner", &json!({})).expect(201);
        let directory = eventually("the program and what it started run", || {
            let running = running(&program);
            let directory = running.iter().find_map(|process| fs::read_link(process.join("cwd")).ok())?;
            let is_noted = directory.join("left").is_file() && directory.with_extension("session").is_file();
            (running.len() >= 3 && is_noted).then_some(directory)
        });
        server.signal(rustix::process::Signal::KILL);
        server.wait();
        eventually("no process is left", || running(&program).is_empty().then_some(()));
        eventually("the directory is gone", || (!directory.exists()).then_some(()));
        eventually("its note is gone", || (!directory.with_extension("session").exists()).then_some(()));
    }
}

/// Whatever a program does, it ends with the server, and the next server removes its remains.
#[test]
fn a_killed_server_leaves_no_program_and_no_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(program) = program(folder.path()) else { return };
    let process = format!("timeout = '60 s'\nprocess = [{{ program = '{program}', args = ['stay'] }}]");
    let server = Server::start_with(once(grant("runner", "postCreate", &process)));
    let api = server.client();
    open_model(&api, "runner");
    bind_post(&api, "runner", &format!("return await run('{program}', ['stay'])"));
    create(&api, "runner", &json!({})).expect(201);
    let directory = eventually("the program and its child run", || {
        let running = running(&program);
        (running.len() == 2).then(|| fs::read_link(running[0].join("cwd")).expect("a directory"))
    });
    assert!(directory.is_dir());
    let _server = server.kill_and_restart();
    eventually("no process is left", || running(&program).is_empty().then_some(()));
    eventually("the directory is gone", || (!directory.exists()).then_some(()));
    assert!(!directory.with_extension("session").exists());
}

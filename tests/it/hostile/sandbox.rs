//! Programs that try to outlive the server, or to take what nobody counts.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::{Server, eventually, skip};
use crate::workbench::{bind_post, create, grant, once, open_model, react};

/// What a program in the sandbox tries, one word each; it says what it could do.
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
    say("pdeathsig", prctl(PR_SET_PDEATHSIG, 0));
    say("setsid", setsid());
    int pair[2];
    say("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
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

/// The program; `None`, and a word about it: there is no compiler.
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
    assert_eq!(answer["stdout"], "fork 1\n", "{answer}");
}

/// Whatever a program does, it ends with the server, and the next one leaves nothing of it.
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
    let running = || {
        let processes = fs::read_dir("/proc").expect("processes").flatten();
        let is_it = |process: &fs::DirEntry| {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).starts_with(&program)
        };
        processes.filter(is_it).map(|process| process.path()).collect::<Vec<_>>()
    };
    let directory = eventually("the program and its child run", || {
        let running = running();
        (running.len() == 2).then(|| fs::read_link(running[0].join("cwd")).expect("a directory"))
    });
    assert!(directory.is_dir());
    let _server = server.kill_and_restart();
    eventually("no process is left", || running().is_empty().then_some(()));
    eventually("the directory is gone", || (!directory.exists()).then_some(()));
    assert!(!directory.with_extension("session").exists());
}

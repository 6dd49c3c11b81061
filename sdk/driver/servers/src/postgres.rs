//! The system's PostgreSQL, with a new database cluster for each server.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::{Server, program};

/// The user, who needs no password: the server listens only on the loopback interface.
pub const USER: &str = "snaphook";
pub const DATABASE: &str = "postgres";

/// Starts a server with these additional settings (`name=value`).
pub fn start(settings: &'static [&'static str]) -> Server {
    let folder = TempDir::new().unwrap();
    // PostgreSQL does not run as root, so it runs as the user that Debian's package creates.
    let user = is_root().then(|| user("postgres"));
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    user.iter().for_each(|(user, group)| chown(folder.path(), Some(*user), Some(*group)).unwrap());
    let initdb = ["-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C", "--no-sync", "-D"];
    let made = as_user("initdb", user).args(initdb).arg(folder.path().join("data")).output().unwrap();
    assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
    Server::start("postgres", folder, move |folder, port| {
        let mut command = as_user("postgres", user);
        command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string(), "-k", ""]);
        let own = ["listen_addresses=127.0.0.1", "max_connections=200", "shared_buffers=64MB"];
        own.iter().chain(settings).for_each(|setting| {
            command.args(["-c", setting]);
        });
        command
    })
}

/// The address of a server as the driver's setting `url`.
pub fn url(server: &Server) -> String {
    format!("postgres://{USER}@{}/{DATABASE}", server.address())
}

/// A program of PostgreSQL, such as `psql`.
pub fn program_of(name: &str) -> PathBuf {
    program(name, &versions())
}

fn as_user(name: &str, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program_of(name));
    command.current_dir("/");
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

/// The folders in which Debian installs the programs of each version, newest first.
fn versions() -> Vec<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    versions.sort_by_key(|folder| std::cmp::Reverse(version(folder)));
    versions
}

fn version(folder: &Path) -> Option<u32> {
    folder.parent()?.file_name()?.to_str()?.parse().ok()
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

/// The ids of a user and of its group.
fn user(name: &str) -> (u32, u32) {
    let number = |flag: &str| -> u32 {
        let id = Command::new("id").args([flag, name]).output().unwrap();
        assert!(id.status.success(), "no user `{name}`; Debian's package `postgresql` creates it");
        String::from_utf8(id.stdout).unwrap().trim().parse().unwrap()
    };
    (number("-u"), number("-g"))
}

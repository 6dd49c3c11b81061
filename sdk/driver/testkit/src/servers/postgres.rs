//! PostgreSQL, as the system has it, with a new cluster of databases for each server.

use std::fs::Permissions;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use async_trait::async_trait;
use serde_json::json;
use snaphook_driver::wire::Opened;
use snaphook_driver::{OpenContext, Result, Store};
use tempfile::TempDir;

use super::{Server, program};
use crate::Opener;

/// Who may connect, without a password: the server listens on the loopback interface only.
pub const USER: &str = "snaphook";
pub const DATABASE: &str = "postgres";

/// Starts a server with these settings beside its own (`name=value`).
pub fn start(settings: &'static [&'static str]) -> Server {
    let folder = TempDir::new().unwrap();
    // It refuses to run as root: then it gets a user of its own, which Debian's package makes.
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

fn as_user(name: &str, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program(name, &versions()));
    command.current_dir("/");
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command
}

/// Where Debian has the programs of each version, newest first.
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

/// A user's number and that of its group.
fn user(name: &str) -> (u32, u32) {
    let number = |flag: &str| -> u32 {
        let id = Command::new("id").args([flag, name]).output().unwrap();
        assert!(id.status.success(), "no user `{name}`; Debian's package `postgresql` makes it");
        String::from_utf8(id.stdout).unwrap().trim().parse().unwrap()
    };
    (number("-u"), number("-g"))
}

/// A driver whose tables name a connection to PostgreSQL. One server serves a process with all its cases, and the processes
/// that it starts and kills: a file in the folder of a case has the address, and each folder has a schema of its own.
pub struct WithPostgres<O>(pub O);

const ADDRESS_FILE: &str = "address-of-postgres";

#[async_trait]
impl<O: Opener> Opener for WithPostgres<O> {
    async fn open(&self, store: Store, mut context: OpenContext) -> Result<Opened> {
        let url = std::fs::read_to_string(context.directory.join(ADDRESS_FILE)).unwrap();
        let mut hasher = DefaultHasher::new();
        context.directory.hash(&mut hasher);
        let schema = format!("case_{:016x}", hasher.finish());
        let connection = json!({"name": "main", "settings": {"url": url, "schema": schema, "pool": 4}});
        context.settings.insert("connection".into(), connection);
        self.0.open(store, context).await
    }

    fn is_linked(&self) -> bool {
        self.0.is_linked()
    }

    fn tries_transport_only(&self) -> bool {
        self.0.tries_transport_only()
    }

    fn prepare(&self, folder: &Path) {
        static SERVER: OnceLock<Server> = OnceLock::new();
        let server = SERVER.get_or_init(|| start(&[]));
        std::fs::write(folder.join(ADDRESS_FILE), url(server)).unwrap();
        self.0.prepare(folder);
    }
}

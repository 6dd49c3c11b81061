//! `[server] mount-address`: a socket address, or a Unix socket in the file system.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::document::Section;

/// Prefix of a Unix socket's path.
const UNIX: &str = "unix:";

/// Longest path of a Unix socket that every system accepts, in bytes.
const UNIX_PATH_BYTES_MAX: usize = 103;

const PORT_DEFAULT: u16 = 1337;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountAddress {
    Tcp(SocketAddr),
    /// The absolute path of the socket.
    Unix(PathBuf),
}

impl MountAddress {
    /// Whether other machines cannot reach it.
    pub fn is_of_this_machine(&self) -> bool {
        match self {
            MountAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            MountAddress::Unix(_) => true,
        }
    }

    /// `None` for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            MountAddress::Tcp(address) => Some(address.port()),
            MountAddress::Unix(_) => None,
        }
    }

    /// The same port on the loopback interface.
    pub(super) fn on_loopback(&self) -> MountAddress {
        match self {
            MountAddress::Tcp(address) => MountAddress::Tcp((Ipv4Addr::LOCALHOST, address.port()).into()),
            MountAddress::Unix(path) => MountAddress::Unix(path.clone()),
        }
    }
}

impl fmt::Display for MountAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountAddress::Tcp(address) => address.fmt(f),
            MountAddress::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// A value and the line of its key.
pub(super) struct Address {
    pub(super) value: MountAddress,
    pub(super) line: Option<usize>,
}

pub(super) fn mount_address(server: &mut Section<'_>, directory: &Path) -> Address {
    let Some(text) = server.string("mount-address") else {
        return Address { value: MountAddress::Tcp((Ipv4Addr::UNSPECIFIED, PORT_DEFAULT).into()), line: None };
    };
    let expected = "an IP address and a port such as '127.0.0.1:1337', or a Unix socket such as 'unix:data/api.sock'";
    let value = match text.value.strip_prefix(UNIX) {
        Some(path) if !cfg!(unix) || path.is_empty() => {
            let expected = if cfg!(unix) { expected } else { "an IP address and a port such as '127.0.0.1:1337'" };
            text.unexpected(expected);
            None
        }
        Some(path) => {
            let path = directory.join(path);
            let length = path.as_os_str().len();
            if length > UNIX_PATH_BYTES_MAX {
                text.place.error(format!(
                    "is a Unix socket whose whole path has {length} bytes, expected at most {UNIX_PATH_BYTES_MAX}"
                ));
            }
            Some(MountAddress::Unix(path))
        }
        None => text.parsed(expected, |text| text.parse().ok().map(MountAddress::Tcp)),
    };
    // An invalid value should not cause further errors.
    let value = value.unwrap_or(MountAddress::Tcp((Ipv4Addr::LOCALHOST, PORT_DEFAULT).into()));
    Address { value, line: Some(text.place.line) }
}

//! What can go wrong with a module.

use std::fmt;
use std::time::Duration;

/// Why a hook has no result that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It panicked or threw an exception.
    Threw,
    /// It says itself that it failed.
    Failed,
    /// It did not return, or was not resumed, in this time.
    Late(Duration),
    /// It did what no module may do.
    Lied(String),
    /// There is no thread for it now.
    NoThread(String),
    /// What it is given, or gives out, does not fit into the server's memory for requests now.
    NoMemory,
    /// What ran it is gone.
    Lost,
}

impl Fault {
    /// The status of the request that met it.
    pub const fn status(&self) -> u16 {
        match self {
            Fault::Late(_) => 504,
            Fault::NoThread(_) | Fault::NoMemory => 503,
            _ => 500,
        }
    }

    /// Whether the module is to blame.
    pub const fn is_strike(&self) -> bool {
        !matches!(self, Fault::NoThread(_) | Fault::NoMemory)
    }

    /// As metrics name it.
    pub const fn label(&self) -> &'static str {
        match self {
            Fault::Threw => "exception",
            Fault::Failed | Fault::Lost => "failed",
            Fault::Late(_) => "timeout",
            Fault::Lied(_) => "invalid",
            Fault::NoThread(_) | Fault::NoMemory => "overloaded",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Threw => f.write_str("it panicked or threw an exception"),
            Fault::Failed => f.write_str("it says that it failed"),
            Fault::Late(limit) => write!(f, "it did not return or go on within {} ms", limit.as_millis()),
            Fault::Lied(what) => write!(f, "{what}"),
            Fault::NoThread(why) => write!(f, "{why}"),
            Fault::NoMemory => {
                f.write_str("the bytes that it is given or gives out do not fit into `server.limits.memory` now")
            }
            Fault::Lost => f.write_str("what ran it is gone"),
        }
    }
}

//! Failures of modules.

use std::fmt;
use std::time::Duration;

/// Why a hook has no usable result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It panicked or threw an exception.
    Threw,
    /// It reported a failure.
    Failed,
    /// It did not return, or was not resumed, in this time.
    Late(Duration),
    /// It broke a rule for modules.
    Lied(String),
    /// There is currently no thread for it.
    NoThread(String),
    /// Its input or output currently does not fit into the server's memory for requests.
    NoMemory,
    /// The process or sandbox that ran it is gone.
    Lost,
}

impl Fault {
    /// The status of the response.
    pub const fn status(&self) -> u16 {
        match self {
            Fault::Late(_) => 504,
            Fault::NoThread(_) | Fault::NoMemory => 503,
            _ => 500,
        }
    }

    /// Whether it counts as a failure of the module.
    pub const fn is_strike(&self) -> bool {
        !matches!(self, Fault::NoThread(_) | Fault::NoMemory)
    }

    /// The label in metrics.
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
            Fault::Failed => f.write_str("it reported a failure"),
            Fault::Late(limit) => write!(f, "it did not return or resume within {} ms", limit.as_millis()),
            Fault::Lied(what) => write!(f, "{what}"),
            Fault::NoThread(why) => write!(f, "{why}"),
            Fault::NoMemory => {
                f.write_str("its input or output does not fit into `server.limits.memory` at the moment")
            }
            Fault::Lost => f.write_str("the process, sandbox or thread that ran it has ended"),
        }
    }
}

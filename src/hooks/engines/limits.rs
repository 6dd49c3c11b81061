//! The limits that every engine enforces, and the messages for exceeding them, which are the same for all engines.

use std::fmt;
use std::time::Duration;

use crate::config::{Limits, format_duration, format_size};
use crate::hooks::access::AccessError;
use crate::hooks::context::{Failure, FailureCause};
use crate::hooks::session::HostError;

/// Limits for code that is only checked: no grant applies yet.
pub(super) const CHECK_LIMITS: Limits = Limits { timeout: Duration::from_secs(2), memory_bytes: 256 << 20 };

/// Most that one call may return, as JSON text.
pub(super) const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// Most that a guest may pass to the host at once: the largest result and its envelope. For WebAssembly, the host
/// copies it on a thread that other calls need.
pub(super) const COPIED_BYTES_MAX: usize = OUTPUT_BYTES_MAX + (1 << 20);

/// A limit that the host found exceeded, which stops the guest.
#[derive(Clone, Debug)]
pub(super) struct Broken(pub(super) Failure);

impl Broken {
    pub(super) fn timeout(limit: Duration, used: Duration) -> Self {
        Broken(Failure {
            cause: FailureCause::Timeout,
            message: format!(
                "the hook ran for {} and did not end, the limit `timeout` is {}; raise it in `[hooks]` or in a grant",
                format_duration(used),
                format_duration(limit)
            ),
            limit: Some(format!("timeout {}", format_duration(limit))),
        })
    }

    /// `what` names the output, such as `the data it returned`.
    pub(super) fn output(what: &str, bytes: usize) -> Self {
        Broken(output_failure(&format!("{what} is {} long", used_size(bytes))))
    }

    /// An internal error of the host.
    pub(super) fn internal(message: String) -> Self {
        Broken(Failure { cause: FailureCause::Internal, message, limit: None })
    }
}

impl From<HostError> for Broken {
    fn from(error: HostError) -> Self {
        Broken(match error {
            HostError::Fatal(failure) => failure,
            HostError::Access(AccessError { message, .. }) => {
                Failure { cause: FailureCause::Exception, message, limit: None }
            }
        })
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Broken {}

/// The failure for more than [`COPIED_BYTES_MAX`], whose exact length is unknown.
pub(super) fn copied_failure() -> Failure {
    let failure = output_failure("what the hook handed to the server at once is too long");
    Failure { message: format!("{}; hand over less, or in several calls", failure.message), ..failure }
}

fn output_failure(what: &str) -> Failure {
    let limit = format_size(OUTPUT_BYTES_MAX);
    Failure {
        cause: FailureCause::Output,
        message: format!("{what}, the limit of what a hook returns is {limit}"),
        limit: Some(format!("output {limit}")),
    }
}

/// The failure for recursion that is too deep, however the guest's language reports it.
pub(super) fn stack_failure() -> Failure {
    Failure {
        cause: FailureCause::Stack,
        message: "the hook used up its stack of 1 MiB, most often by recursion that does not end".into(),
        limit: Some("stack 1 MiB".into()),
    }
}

/// `asked` is the requested amount and the amount in use, if known.
pub(super) fn memory_failure(limit: usize, asked: Option<(usize, usize)>) -> Failure {
    let asked = match asked {
        Some((wanted, used)) => {
            format!("asked for {} of memory with {} in use", used_size(wanted.saturating_sub(used)), used_size(used))
        }
        None => "asked for more memory than it may have".into(),
    };
    Failure {
        cause: FailureCause::Memory,
        message: format!(
            "the hook {asked}, the limit `memory` is {}; raise it in `[hooks]` or in a grant",
            format_size(limit)
        ),
        limit: Some(format!("memory {}", format_size(limit))),
    }
}

/// Formats a measured size for messages; limits are formatted by [`crate::config::format_size`].
pub(super) fn used_size(bytes: usize) -> String {
    match bytes {
        mib if mib >= 1 << 20 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        kib if kib >= 1 << 10 => format!("{:.1} KiB", bytes as f64 / f64::from(1 << 10)),
        _ => format!("{bytes} B"),
    }
}

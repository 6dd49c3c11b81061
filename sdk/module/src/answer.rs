//! The results of hooks.

use snaphook_module_abi as abi;

/// The result of a request hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The module declines: the next module is called.
    Declined,
    /// Handled: no later module is called for this hook.
    Ok,
    /// The hook waits: it is called again after [`crate::Resume::resume`].
    Pending,
    /// An error with this HTTP status, 400 to 599: `request_error` follows with the response.
    Status(u16),
}

impl Answer {
    pub(crate) fn code(self) -> u32 {
        match self {
            Answer::Declined => abi::DECLINED,
            Answer::Ok => abi::OK,
            Answer::Pending => abi::PENDING,
            // Smaller numbers have other meanings.
            Answer::Status(status) if u32::from(status) < abi::STATUS_MIN => abi::FAILED,
            Answer::Status(status) => status.into(),
        }
    }
}

/// The result of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// The bytes pass unchanged.
    Unchanged,
    /// The bytes written to the output replace them.
    Replaced,
    /// The connection, or the body, ends here with an error.
    Failed,
}

impl Filtered {
    pub(crate) fn code(self) -> u32 {
        match self {
            Filtered::Unchanged => abi::DECLINED,
            Filtered::Replaced => abi::OK,
            Filtered::Failed => abi::FAILED,
        }
    }
}

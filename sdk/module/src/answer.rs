//! What hooks return.

use snaphook_module_abi as abi;

/// What a hook of a request returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing to say: the next module is asked.
    Declined,
    /// Handled: no later module is asked for this hook.
    Ok,
    /// It waits: the hook is called again after [`crate::Resume::resume`].
    Pending,
    /// An error with this HTTP status, 400 to 599: `request_error` makes the response.
    Status(u16),
}

impl Answer {
    pub(crate) fn code(self) -> u32 {
        match self {
            Answer::Declined => abi::DECLINED,
            Answer::Ok => abi::OK,
            Answer::Pending => abi::PENDING,
            // Smaller numbers are other results.
            Answer::Status(status) if u32::from(status) < abi::STATUS_MIN => abi::FAILED,
            Answer::Status(status) => status.into(),
        }
    }
}

/// What a filter of bytes returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtered {
    /// The bytes go on as they are.
    Unchanged,
    /// What was written to the output takes their place.
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

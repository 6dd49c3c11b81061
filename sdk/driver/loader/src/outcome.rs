//! How a call ends.

/// The stage that a call has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The library's function has not been called yet.
    Queued,
    /// The function has been called.
    Running,
    /// The function has returned.
    Returned,
}

/// How a call ended, for its waiter.
pub(crate) enum CallOutcome {
    Answered(LibraryAnswer),
    /// The library's function panicked or threw an exception.
    Thrown,
    /// The deadline passed at this stage.
    Late(Stage),
}

/// A library's answer.
pub(crate) struct LibraryAnswer {
    pub(crate) status: u32,
    /// The bytes of the response, or a description of what is wrong with them.
    pub(crate) bytes: Result<Vec<u8>, String>,
}

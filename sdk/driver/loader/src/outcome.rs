//! How a call ends.

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The library's function was not called yet.
    Queued,
    /// It was called.
    Running,
    /// It returned.
    Returned,
}

/// How a call ended, for who waits.
pub(crate) enum Outcome {
    Answered(Answer),
    /// The library's function panicked or threw something.
    Thrown,
    /// The time was over, at this stage.
    Late(Stage),
}

/// What a library answered.
pub(crate) struct Answer {
    pub(crate) status: u32,
    /// Or what is wrong with them.
    pub(crate) bytes: Result<Vec<u8>, String>,
}

//! Why a definition is invalid.

/// The error, and its place in the request body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefinitionError {
    /// JSON Pointer.
    pub pointer: String,
    pub message: String,
    /// The definition is valid, but takes too much work.
    pub too_complex: bool,
}

pub(super) fn error<T>(pointer: impl Into<String>, message: impl Into<String>) -> Result<T, DefinitionError> {
    Err(DefinitionError { pointer: pointer.into(), message: message.into(), too_complex: false })
}

/// One token of a JSON Pointer.
pub fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

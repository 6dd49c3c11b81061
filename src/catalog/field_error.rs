//! Errors in a document, with their places.

/// A message about one place of a document.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FieldError {
    /// JSON Pointer.
    pub pointer: String,
    pub message: String,
}

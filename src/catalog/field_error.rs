//! What is wrong in a document, and where.

/// A message about one place of a document.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FieldError {
    /// JSON Pointer.
    pub pointer: String,
    pub message: String,
}

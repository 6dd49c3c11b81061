//! Checks data against a model: fills in defaults, checks the size and the schema. Long checks move to the workers.

use std::sync::Arc;

use snaphook_driver::limits::{self, PAYLOAD_BYTES_MAX};

use super::error::{Error, ErrorKind, Result};
use super::models::LiveModel;
use super::workers::{Workers, late};
use crate::catalog::document::Document;
use crate::catalog::{Effort, FieldError, Schema, Unfit};

/// Larger texts would block a request thread for too long, so they go to the workers immediately.
const TRIED_BYTES_MAX: usize = 256 * 1024;

/// Where the pointers of errors start, and whether defaults are filled in first.
#[derive(Clone, Copy)]
pub(super) struct Fitting {
    pub(super) prefix: &'static str,
    pub(super) defaults: bool,
}

/// Why data does not match the model.
pub(super) enum Misfit {
    Errors(Vec<FieldError>),
    TooLarge(String),
    TooComplex(String),
    /// No verdict: overloaded, or stopping.
    Unknown(Error),
}

/// Checks a document; gives it back with its defaults.
pub(super) async fn fit(
    workers: &Workers,
    model: &str,
    schema: &Arc<Schema>,
    document: Document,
    fitting: Fitting,
) -> Result<Document, Misfit> {
    let mut document = document;
    if document.text.len() <= TRIED_BYTES_MAX {
        match try_fit(schema, &mut document, fitting, &Effort::small()) {
            Err(Misfit::TooComplex(_)) => {}
            Err(misfit) => return Err(misfit),
            Ok(()) => return Ok(document),
        }
    }
    let schema = Arc::clone(schema);
    let work = move |effort: &Effort| {
        try_fit(&schema, &mut document, fitting, effort)?;
        Ok::<_, Misfit>(document)
    };
    workers.run(model, work).await.unwrap_or_else(|error| Err(Misfit::Unknown(error)))
}

/// The same, synchronously, with a limited effort. The document may have got defaults even if the check fails.
pub(super) fn try_fit(
    schema: &Schema,
    document: &mut Document,
    fitting: Fitting,
    effort: &Effort,
) -> Result<(), Misfit> {
    if fitting.defaults && schema.has_defaults() && schema.fill_defaults(&mut document.value, effort)? {
        *document = Document::from_value(std::mem::take(&mut document.value));
    }
    // Data beyond the limits of stores must not get into the log.
    if let Err(exceeded) = limits::check_data(&document.text) {
        let message = exceeded.to_string();
        return Err(match document.text.len() > PAYLOAD_BYTES_MAX {
            true => Misfit::TooLarge(message),
            false => Misfit::Errors(vec![FieldError { pointer: fitting.prefix.to_owned(), message }]),
        });
    }
    Ok(schema.check(&document.value, fitting.prefix, effort)?)
}

impl From<Unfit> for Misfit {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Errors(errors) => Misfit::Errors(errors),
            Unfit::TooComplex(message) => Misfit::TooComplex(message),
            Unfit::Late => Misfit::Unknown(late()),
        }
    }
}

impl Misfit {
    /// The error for a change of an instance.
    pub(super) fn into_error(self, entry: &LiveModel) -> Error {
        let record = &entry.model.record;
        match self {
            Misfit::Errors(errors) => {
                let detail =
                    format!("the data does not fit the schema of `{}` (version {})", record.id, record.version);
                Error::new(ErrorKind::Invalid, detail).with_errors(errors)
            }
            Misfit::TooLarge(detail) => Error::new(ErrorKind::TooLarge, detail),
            Misfit::TooComplex(detail) => Error::new(
                ErrorKind::TooComplex,
                format!("{detail}; send less, or make the schema of `{}` simpler", record.id),
            ),
            Misfit::Unknown(error) => error,
        }
    }
}

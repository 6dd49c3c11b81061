//! The opaque cursor of a page of instances: where the page ended, and a hash of its query.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::error::{DriverError, ErrorKind, Result};
use crate::json::{self, Tree};
use crate::model_store::InstanceQuery;

/// Maximum size of a cursor's keys in bytes. A cursor is part of a URL, and the keys are a client's data.
pub const CURSOR_KEY_BYTES_MAX: usize = 4096;

/// The end of a page. For drivers; clients only see its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    /// One value per sort key, in a format of the driver.
    pub keys: Vec<Value>,
    /// Id of the last instance of the page.
    pub id: String,
}

impl Cursor {
    /// The text that goes into `next`; `ErrorKind::TooComplex` if the keys are too long for one.
    pub fn encode(&self, model: &str, query: &InstanceQuery) -> Result<String> {
        let bytes: usize = self.keys.iter().map(|key| key.as_str().map_or(0, str::len)).sum();
        if bytes > CURSOR_KEY_BYTES_MAX {
            return Err(DriverError::new(
                ErrorKind::TooComplex,
                "query",
                format!(
                    "the page ends at `{}`, whose sort keys have {bytes} bytes, but a cursor for the next page can contain \
                     at most {CURSOR_KEY_BYTES_MAX}; sort by shorter values",
                    self.id
                ),
            ));
        }
        let json = serde_json::json!([mark(model, query), self.keys, self.id]);
        Ok(URL_SAFE_NO_PAD.encode(json.to_string()))
    }

    /// Reads the cursor of a query; `None` if it has none, `ErrorKind::Invalid` if it belongs to another query.
    pub fn decode(model: &str, query: &InstanceQuery) -> Result<Option<Cursor>> {
        let Some(text) = &query.cursor else { return Ok(None) };
        let invalid = |message: &str| DriverError::new(ErrorKind::Invalid, "query", message);
        let parts = URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| json::typed_bytes::<(u64, Vec<Tree>, String)>(&bytes).ok());
        let Some((found, keys, id)) = parts else {
            return Err(invalid("the cursor is damaged, start again without one"));
        };
        if found != mark(model, query) || keys.len() != query.sort.len() {
            return Err(invalid("the cursor belongs to another filter or sort, start again without one"));
        }
        Ok(Some(Cursor { keys: keys.into_iter().map(|key| key.0).collect(), id }))
    }
}

/// FNV-1a over model, filter and sort: cheap, and the same in every build.
fn mark(model: &str, query: &InstanceQuery) -> u64 {
    let text = serde_json::to_string(&(model, &query.filter, &query.sort)).unwrap_or_default();
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_bound_to_its_query() {
        let cursor = Cursor { keys: Vec::new(), id: "a".into() };
        let mut query = InstanceQuery { limit: 10, ..InstanceQuery::default() };
        assert_eq!(Cursor::decode("m", &query).unwrap(), None);
        query.cursor = Some(cursor.encode("m", &query).unwrap());
        query.limit = 5;
        assert_eq!(Cursor::decode("m", &query).unwrap(), Some(cursor));
        assert_eq!(Cursor::decode("n", &query).unwrap_err().kind(), ErrorKind::Invalid);
        let long = Cursor { keys: vec!["x".repeat(CURSOR_KEY_BYTES_MAX + 1).into()], id: "a".into() };
        assert_eq!(long.encode("m", &query).unwrap_err().kind(), ErrorKind::TooComplex);
        query.cursor = Some("***".into());
        assert_eq!(Cursor::decode("m", &query).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

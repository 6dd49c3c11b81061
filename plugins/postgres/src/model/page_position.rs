//! The end of a page, as a cursor contains it: the whole keys of its last instance.

use serde_json::Value;
use snaphook_driver::{Cursor, DriverError, ErrorKind, InstanceQuery, Result, SortKey};

use super::key::{ABSENT, BOOLEAN, NUMBER, OTHER, key, text_of};

/// The last instance of a page.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PagePosition {
    /// One key per distinguishing sort key, see `Plan::sort`.
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) id: String,
}

impl PagePosition {
    /// Decodes the cursor of a query. `sort` contains its distinguishing sort keys.
    pub(super) fn decode(model: &str, query: &InstanceQuery, sort: &[SortKey]) -> Result<Option<PagePosition>> {
        let Some(cursor) = Cursor::decode(model, query)? else { return Ok(None) };
        let keys = sort.iter().map(|wanted| {
            let at = query.sort.iter().position(|key| key == wanted)?;
            unpack(&cursor.keys[at], wanted.descending)
        });
        let keys = keys.collect::<Option<Vec<_>>>().ok_or_else(|| {
            DriverError::new(ErrorKind::Invalid, "query", "the cursor is damaged, start again without one")
        })?;
        Ok(Some(PagePosition { keys, id: cursor.id }))
    }

    pub(super) fn encode(&self, model: &str, query: &InstanceQuery, sort: &[SortKey]) -> Result<String> {
        let pack = |key: &SortKey| {
            let at = sort.iter().position(|other| other == key);
            at.map_or(Value::Null, |at| pack(&self.keys[at], key.descending))
        };
        Cursor { keys: query.sort.iter().map(pack).collect(), id: self.id.clone() }.encode(model, query)
    }
}

/// A key as JSON: text as it is, anything else as hexadecimal digits.
fn pack(key: &[u8], descending: bool) -> Value {
    match text_of(key, descending) {
        Some(text) => format!("t{text}").into(),
        None => key.iter().fold(String::from("k"), |text, byte| text + &format!("{byte:02x}")).into(),
    }
}

fn unpack(packed: &Value, descending: bool) -> Option<Vec<u8>> {
    let packed = packed.as_str()?;
    if let Some(text) = packed.strip_prefix('t') {
        return Some(key(Some(&Value::from(text)), descending));
    }
    let digits = packed.strip_prefix('k')?.as_bytes();
    let pairs = digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let bytes = pairs.collect::<Option<Vec<u8>>>()?;
    let is_key = match bytes.as_slice() {
        [BOOLEAN, value] => *value < 2,
        [NUMBER, _, ..] => true,
        [class] => matches!(*class, OTHER | ABSENT),
        _ => false,
    };
    is_key.then_some(bytes)
}

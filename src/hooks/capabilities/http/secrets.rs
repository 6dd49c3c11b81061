//! Replaces `{{secret:name}}` in header values, so that the hook never sees the value.

use super::super::super::session::{HostError, Session};
use super::{HEADERS_BYTES_MAX, invalid, too_long};

const OPEN: &str = "{{secret:";
const CLOSE: &str = "}}";

impl Session {
    /// Returns the value with its secrets inserted, and whether there were any. Each needs the hook's grant for that
    /// secret. The text may have at most `bytes` bytes. Each secret counts as a host call, because it is a read of the
    /// store.
    pub(super) async fn with_secrets(&self, value: &str, bytes: usize) -> Result<(String, bool), HostError> {
        if value.len() > HEADERS_BYTES_MAX {
            return Err(too_long());
        }
        if !value.contains(OPEN) {
            return Ok((value.to_owned(), false));
        }
        let mut text = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (name, after) =
                after.split_once(CLOSE).ok_or_else(|| invalid(format!("`{OPEN}` without `{CLOSE}` in a header")))?;
            text.push_str(before);
            // A secret's value is not expanded again, so it cannot name another secret. A line break at the end of a
            // file does not belong to the header.
            text.push_str(self.secret_get(name.trim()).await?.trim_end_matches(['\r', '\n']));
            if text.len() > bytes {
                return Err(too_long());
            }
            rest = after;
        }
        text.push_str(rest);
        Ok((text, true))
    }
}

//! `{{secret:name}}` in header values: put in here, so that the hook never holds the value.

use super::super::super::session::{HostError, Session};
use super::invalid;

const OPEN: &str = "{{secret:";
const CLOSE: &str = "}}";

impl Session {
    /// The value with its secrets, and whether there were any. Each needs the hook's grant for that secret.
    pub(super) async fn with_secrets(&self, value: &str) -> Result<(String, bool), HostError> {
        if !value.contains(OPEN) {
            return Ok((value.to_owned(), false));
        }
        let mut text = String::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (name, after) =
                after.split_once(CLOSE).ok_or_else(|| invalid(format!("`{OPEN}` without `{CLOSE}` in a header")))?;
            text.push_str(before);
            // What a secret holds is not looked at again, so one cannot name another. A file's last line break is
            // no part of a header.
            text.push_str(self.secret_value(name.trim()).await?.trim_end_matches(['\r', '\n']));
            rest = after;
        }
        text.push_str(rest);
        Ok((text, true))
    }
}

//! One JSON object per record and line.

use std::io::Write as _;

use async_trait::async_trait;
use snaphook_driver::{Capabilities, DriverError, ErrorKind, ErrorPage, ErrorQuery, ErrorRecord, ErrorStore, Result};

/// See the crate's documentation.
pub struct StdoutErrorStore;

#[async_trait]
impl ErrorStore for StdoutErrorStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::LEAST
    }

    async fn health(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }

    async fn record(&self, record: &ErrorRecord) -> Result<()> {
        let text = serde_json::to_string(record).map_err(|error| {
            DriverError::new(ErrorKind::Invalid, "record", "the record cannot be written as JSON").because(error)
        })?;
        let mut line = shown(&text).into_bytes();
        line.push(b'\n');
        // A pipe with a slow reader blocks, which must not stop the requests on this thread.
        let write = move || {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&line).and_then(|()| stdout.flush())
        };
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            DriverError::new(ErrorKind::Unavailable, "record", "standard output cannot be written").because(error)
        };
        tokio::task::spawn_blocking(write)
            .await
            .map_err(|error| failed(error.into()))?
            .map_err(|error| failed(error.into()))
    }

    async fn list(&self, _query: &ErrorQuery) -> Result<ErrorPage> {
        Ok(ErrorPage::default())
    }

    async fn count(&self, _query: &ErrorQuery) -> Result<u64> {
        Ok(0)
    }

    async fn get(&self, _id: &str) -> Result<Option<ErrorRecord>> {
        Ok(None)
    }

    async fn remove(&self, _id: &str) -> Result<bool> {
        Ok(false)
    }
}

/// The same JSON without control characters outside ASCII; JSON already escapes those of ASCII.
fn shown(json: &str) -> String {
    let is_obeyed = |char: char| {
        char.is_control()
            || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
    };
    json.chars().fold(String::with_capacity(json.len()), |mut text, char| {
        match is_obeyed(char) {
            true => text.push_str(&format!("\\u{:04x}", u32::from(char))),
            false => text.push(char),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_terminal_has_nothing_to_obey_and_json_says_the_same() {
        let value = serde_json::json!({ "a": "\u{1b}[31m\u{7f}\u{9b}2J\u{202e}\nü" });
        let text = shown(&value.to_string());
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert_eq!(snaphook_driver::json::parse(&text).unwrap(), value);
    }
}

//! The errors of a configuration: all at once, each with its line.

use std::fmt;

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// 1-based; `None` if the error is about something that is missing from the file.
    pub line: Option<usize>,
    /// Lowercase, without a full stop. Never contains a value that could be a secret.
    pub message: String,
}

impl ConfigError {
    /// An error at a line, or of the whole file.
    pub fn new(line: impl Into<Option<usize>>, message: impl Into<String>) -> Self {
        ConfigError { line: line.into(), message: message.into() }
    }
}

/// All errors of one file, sorted by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file name as given, such as `config.toml`.
    pub file: String,
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Sorts the errors by line; those of one line keep their order.
    pub fn new(file: impl Into<String>, mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.line);
        ConfigErrors { file: file.into(), errors }
    }

    /// One line of text per error, `config.toml:14: …`.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.errors.iter().map(|error| match error.line {
            Some(line) => format!("{}:{line}: {}", self.file, error.message),
            None => format!("{}: {}", self.file, error.message),
        })
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

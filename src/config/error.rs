//! What is wrong with a configuration: every fault at once, each with its line.

use std::fmt;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// 1-based; `None`: the fault is in what the file does not say.
    pub line: Option<usize>,
    /// Lowercase, without a full stop. Never holds a value that could be a secret.
    pub message: String,
}

impl ConfigError {
    /// A fault at a line, or of the file as a whole.
    pub fn new(line: impl Into<Option<usize>>, message: impl Into<String>) -> Self {
        ConfigError { line: line.into(), message: message.into() }
    }
}

/// Every fault of one file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file as it was named, such as `config.toml`.
    pub file: String,
    pub errors: Vec<ConfigError>,
}

impl ConfigErrors {
    /// Sorts the faults by line; those of one line stay in the order in which they were found.
    pub fn new(file: impl Into<String>, mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.line);
        ConfigErrors { file: file.into(), errors }
    }

    /// One text per fault, `config.toml:14: …`.
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

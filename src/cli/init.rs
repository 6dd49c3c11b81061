//! `snaphook init`: creates a working project.

use std::path::PathBuf;

use clap::Args;

use super::failure::Result;
use super::hook::types;
use super::{output, templates};

/// Create a project: a configuration, a model and a hook in TypeScript
///
/// Example: snaphook init shop && cd shop && snaphook dev
#[derive(Args, Debug)]
pub(super) struct Init {
    /// The folder; it must be new or empty
    directory: PathBuf,
}

impl Init {
    pub(super) fn run(&self) -> Result<()> {
        let directory = &self.directory;
        let name = std::path::absolute(directory).ok();
        let name = name.as_deref().and_then(|path| path.file_name()?.to_str()).unwrap_or("project");
        let mut files = templates::write("project", directory, &[("name", name)])?;
        let model = directory.join("hooks/order/model.json");
        files.extend(
            types::write_beside(&model, "order")?
                .into_iter()
                .filter_map(|path| Some(path.strip_prefix(directory).ok()?.to_string_lossy().into_owned())),
        );
        files.sort();
        for file in files {
            output::line(format!("created {}", directory.join(file).display()))?;
        }
        output::line(format!("next: cd {} && snaphook dev", shell_word(&directory.to_string_lossy())))
    }
}

/// As a shell takes it for one word.
fn shell_word(text: &str) -> String {
    let plain = |char: char| char.is_ascii_alphanumeric() || "/._-+".contains(char);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(shell_word("a/b-1.x"), "a/b-1.x");
        assert_eq!(shell_word("a b'c"), "'a b'\\''c'");
    }
}

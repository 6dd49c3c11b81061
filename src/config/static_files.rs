//! `[server.static]`: a folder of files that are served beside the API.

use std::path::{Component, Path, PathBuf};

use super::document::Section;

/// `[server.static]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticConfig {
    /// Absolute.
    pub directory: PathBuf,
    /// The page to serve where no file exists, relative to the directory.
    pub fallback: Option<String>,
    /// The line of the table, for messages.
    pub line: usize,
}

pub(super) fn static_files(server: &mut Section<'_>, directory: &Path) -> Option<StaticConfig> {
    let mut section = server.section("static");
    let line = section.line;
    let folder = section
        .string("directory")
        .and_then(|text| text.parsed("a path", |text| (!text.is_empty()).then(|| directory.join(text))));
    if line.is_some() && !section.was_there("directory") {
        section.missing("directory", "the folder whose files are served");
    }
    let fallback = section.string("fallback").and_then(|text| {
        text.parsed("a file in the directory such as 'index.html'", |text| {
            let is_plain = |part: Component<'_>| match part {
                Component::Normal(name) => !name.as_encoded_bytes().starts_with(b"."),
                _ => false,
            };
            let is_inside = !text.is_empty() && Path::new(text).components().all(is_plain);
            is_inside.then(|| text.to_owned())
        })
    });
    section.finish();
    Some(StaticConfig { directory: folder?, fallback, line: line? })
}

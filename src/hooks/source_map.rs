//! The source map at the end of a bundle: maps positions in a minifier's single line to the author's files.
//!
//! `snaphook hook build` keeps the part of a bundler's map that points to the author's own files ([`comment`]); the
//! engines read it when the hook is bound ([`split`]). A map only helps people: a damaged one is ignored.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oxc_sourcemap::{SourceMap, Token};
use serde::{Deserialize, Serialize};

const COMMENT: &str = "\n//# sourceMappingURL=data:application/json;base64,";

/// The folder of packages, whose code authors do not debug.
const PACKAGES: &str = "node_modules";

/// How many positions a map may contain: larger code was not written by hand.
const ROWS_MAX: usize = 200_000;

/// Longer names of files are ignored.
const FILE_NAME_MAX: usize = 256;

/// Maps positions of a bundle to their origin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::hooks) struct SourcePlaces {
    files: Vec<String>,
    /// Line and column in the bundle; index of the file, if it is the author's; line and column in that file. 0-based,
    /// sorted.
    rows: Vec<(u32, u32, Option<u32>, u32, u32)>,
}

/// A position in one of the author's files, 1-based.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::hooks) struct SourcePlace<'a> {
    pub(in crate::hooks) file: &'a str,
    pub(in crate::hooks) line: u32,
    pub(in crate::hooks) column: u32,
}

impl SourcePlaces {
    pub(in crate::hooks) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The origin of a 1-based position in the bundle; `None` if it is not in one of the author's files.
    pub(in crate::hooks) fn find(&self, line: u32, column: u32) -> Option<SourcePlace<'_>> {
        let wanted = (line.checked_sub(1)?, column.checked_sub(1)?);
        let index = self.rows.partition_point(|row| (row.0, row.1) <= wanted).checked_sub(1)?;
        let (row_line, _, file, line, column) = self.rows[index];
        let file = self.files.get(file? as usize).filter(|_| row_line == wanted.0)?;
        Some(SourcePlace { file, line: line + 1, column: column + 1 })
    }
}

/// Splits a source into the code and the map at its end.
pub(in crate::hooks) fn split(source: &str) -> (&str, SourcePlaces) {
    let Some((code, map)) = source.rsplit_once(COMMENT) else { return (source, SourcePlaces::default()) };
    let map = map.trim_end();
    if map.contains(|c: char| c.is_whitespace()) {
        return (source, SourcePlaces::default());
    }
    // A library parses this untrusted text.
    let places = catch_unwind(AssertUnwindSafe(|| read(map))).ok().flatten();
    (code, places.unwrap_or_default())
}

fn read(map: &str) -> Option<SourcePlaces> {
    let json = String::from_utf8(BASE64.decode(map).ok()?).ok()?;
    let map = SourceMap::from_json_string(&json).ok()?;
    let files: Vec<_> = map.get_sources().map(str::to_owned).collect();
    if files.iter().any(|file| file.len() > FILE_NAME_MAX || file.contains(char::is_control)) {
        return None;
    }
    let rows = map.get_tokens().map(|token| {
        let file = token.get_source_id().filter(|file| (*file as usize) < files.len());
        (token.get_dst_line(), token.get_dst_col(), file, token.get_src_line(), token.get_src_col())
    });
    let mut rows: Vec<_> = rows.take(ROWS_MAX + 1).collect();
    if rows.len() > ROWS_MAX {
        return None;
    }
    rows.sort_unstable();
    Some(SourcePlaces { files, rows })
}

/// The comment for the end of a bundle: the part of the bundler's map that points to files outside of packages. File
/// names in the map are relative to `folder`; in the result they are relative to `project`. The error is a sentence.
pub fn comment(map: &str, folder: &Path, project: &Path) -> Result<String, String> {
    let map = SourceMap::from_json_string(map).map_err(|error| format!("its source map cannot be read: {error}"))?;
    let mut files: Vec<String> = Vec::new();
    let kept: Vec<Option<u32>> = map
        .get_sources()
        .map(|source| {
            let path = plain(&folder.join(source));
            let is_package = path.components().any(|part| part.as_os_str() == PACKAGES);
            (!is_package).then(|| {
                let name = path.strip_prefix(plain(project)).unwrap_or(Path::new(path.file_name().unwrap_or_default()));
                files.push(name.to_string_lossy().replace('\\', "/"));
                files.len() as u32 - 1
            })
        })
        .collect();
    let mut tokens: Vec<Token> = Vec::new();
    let mut last = None;
    for token in map.get_tokens() {
        let file = token.get_source_id().and_then(|source| kept.get(source as usize).copied().flatten());
        // Of a part that is dropped, only keep its start.
        if file.is_some() || last != Some(None) {
            let (line, column) = if file.is_some() { (token.get_src_line(), token.get_src_col()) } else { (0, 0) };
            tokens.push(Token::new(token.get_dst_line(), token.get_dst_col(), line, column, file, None));
        }
        last = Some(file);
    }
    let files = files.into_iter().map(Into::into).collect();
    let kept = SourceMap::new(None, Vec::new(), None, files, Vec::new(), tokens.into(), None);
    Ok(format!("{COMMENT}{}\n", BASE64.encode(kept.to_json_string())))
}

/// Removes `.` and `..` lexically.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a bundler writes it: one file of the author's, one package's, and the author's again.
    fn bundled() -> String {
        let token =
            |column, line, source_column, source| Token::new(0, column, line, source_column, Some(source), None);
        let tokens = [token(0, 4, 2, 0), token(10, 9, 9, 1), token(20, 9, 30, 1), token(30, 6, 0, 0)];
        let files = ["../work/shop/src/order.ts", "../work/shop/node_modules/zod/index.js"];
        let files = files.map(Into::into).to_vec();
        let map = SourceMap::new(None, Vec::new(), None, files, Vec::new(), tokens.to_vec().into(), None);
        map.to_json_string()
    }

    #[test]
    fn places_lead_to_the_authors_files_and_to_no_others() {
        let comment = comment(&bundled(), Path::new("/tmp"), Path::new("/work/./shop")).unwrap();
        let bundle = format!("aaaaaaaaaabbbbbbbbbbbbbbbbbbbbcccccccccc{comment}");
        let (code, places) = split(&bundle);
        assert_eq!(code, "aaaaaaaaaabbbbbbbbbbbbbbbbbbbbcccccccccc");
        let at = |column| places.find(1, column).map(|place| (place.file.to_owned(), place.line, place.column));
        assert_eq!(at(1), Some(("src/order.ts".to_owned(), 5, 3)));
        assert_eq!(at(10), Some(("src/order.ts".to_owned(), 5, 3)));
        assert_eq!((at(11), at(25), at(30)), (None, None, None));
        assert_eq!(at(31), Some(("src/order.ts".to_owned(), 7, 1)));
        assert_eq!(places.find(2, 1), None);
        assert_eq!(places.rows.len(), 3);
    }

    #[test]
    fn a_damaged_map_is_as_good_as_none() {
        let with = |map: &str| format!("export default 1{COMMENT}{map}");
        let json = |text: &str| with(&BASE64.encode(text));
        for source in [
            with("%%%"),
            with(""),
            json("{"),
            json("[]"),
            json(r#"{"version":3,"sources":[],"names":[],"mappings":"AAAA"}"#),
            json(r#"{"version":3,"sources":["a"],"names":[],"mappings":"////////////////"}"#),
            json(r#"{"version":3,"sources":["a"],"names":[],"mappings":"AAAAA,gggggggggggggggggggggB"}"#),
            json(&format!(r#"{{"version":3,"sources":["{}"],"names":[],"mappings":"AAAA"}}"#, "a".repeat(300))),
            json(r#"{"version":3,"sources":["a\nb"],"names":[],"mappings":"AAAA"}"#),
        ] {
            let (code, places) = split(&source);
            assert_eq!(code, "export default 1", "{source}");
            assert!(places.find(1, 1).is_none_or(|place| place.file == "a"), "{source}: {places:?}");
        }
        // Something that only looks like it.
        let text = with("x\nfoo()");
        assert_eq!(split(&text).0, text);
    }
}

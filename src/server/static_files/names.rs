//! Which paths of requests may be files.

use std::borrow::Cow;

use hyper::Uri;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Whether each segment is a plain name: not hidden, not `..`, and without what separates names on some system. Only the last
/// one may be empty, of a folder.
pub(super) fn is_plain(path: &str) -> bool {
    let Some(path) = path.strip_prefix('/') else { return false };
    let folder = path.strip_suffix('/').unwrap_or(path);
    path.is_empty() || folder.split('/').all(is_name)
}

fn is_name(segment: &str) -> bool {
    let decoded: Cow<'_, [u8]> = percent_decode_str(segment).into();
    let Ok(name) = std::str::from_utf8(&decoded) else { return false };
    let is_strange = |char: char| char.is_control() || matches!(char, '/' | '\\' | ':');
    !name.is_empty() && !name.starts_with('.') && !name.chars().any(is_strange)
}

/// The path under which a client asks for a file of the folder.
pub(super) fn path_of(file: &str) -> Option<Uri> {
    let segments = file.split(['/', std::path::MAIN_SEPARATOR]);
    let path: String = segments.map(|segment| format!("/{}", utf8_percent_encode(segment, NON_ALPHANUMERIC))).collect();
    path.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths() {
        for plain in ["/", "/a", "/a/", "/a/b.c", "/a%20b", "/%C3%A4", "/a..b", "/a.", "/%61", "/a~", "/*"] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in [
            "",
            "*",
            "a",
            "//",
            "//a",
            "/a//b",
            "/a//",
            "/.",
            "/..",
            "/../a",
            "/a/..",
            "/a/../b",
            "/.git/config",
            "/a/.b",
            "/%2e%2e/a",
            "/%2E./a",
            "/.%2e",
            "/%2egit",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/%00",
            "/a%00.html",
            "/%0a",
            "/c:",
            "/c%3a/b",
            "/%ff",
            "/a%c3%28",
        ] {
            assert!(!is_plain(other), "{other}");
        }
        assert_eq!(path_of("app/index.html").unwrap().path(), "/app/index%2Ehtml");
    }
}

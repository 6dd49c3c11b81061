//! Parses paths of clients in filters, sorts and rules.

use snaphook_driver::Meta;

/// Bytes of a path, and of a pattern of `like`.
const PATH_BYTES_MAX: usize = 1024;
pub(super) const PATTERN_BYTES_MAX: usize = 1024;

/// The target of a client's path: a dotted path into the data, or a value besides it.
pub(super) enum PathTarget<'a> {
    Meta(Meta),
    Dotted(&'a str),
}

/// Reads a path with its leading `$`, if it has one.
pub(super) fn place<'a>(what: &str, path: &'a str) -> Result<PathTarget<'a>, String> {
    check_path(what, path)?;
    let Some(rest) = path.strip_prefix('$') else { return Ok(PathTarget::Dotted(path)) };
    if rest.starts_with('$') {
        return Ok(PathTarget::Dotted(rest));
    }
    let known = || Meta::ALL.map(Meta::name).join(" ");
    Meta::from_name(path).map(PathTarget::Meta).ok_or_else(|| {
        format!(
            "{what}: `{path}` is not a field of an instance, expected one of {}; a property whose name begins with `$` \
             is written `${path}`",
            known()
        )
    })
}

pub(super) fn check_path(what: &str, dotted: &str) -> Result<(), String> {
    match dotted.len() {
        0..=PATH_BYTES_MAX => Ok(()),
        bytes => Err(format!("{what}: a path of {bytes} bytes, at most {PATH_BYTES_MAX} are allowed")),
    }
}

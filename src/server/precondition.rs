//! `If-Match` and `If-None-Match` (RFC 9110, section 13).

use super::etag::{EntityTag, LogMark};
use super::problem::{Problem, ProblemType, Result};
use super::query::shorten;
use crate::engine::command::{Precondition, Seen};
use hyper::HeaderMap;
use hyper::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

/// The outcome of a conditional read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Send,
    /// 304.
    NotModified,
}

/// The preconditions of a write to the log `log`.
pub(super) fn of_write(headers: &HeaderMap, log: LogMark) -> Result<Precondition> {
    match (tags(headers, IF_MATCH)?, tags(headers, IF_NONE_MATCH)?) {
        (None, None) => Ok(Precondition::None),
        (Some(Tags::Any), None) => Ok(Precondition::Exists),
        (Some(Tags::List(tags)), None) => one_of("If-Match", &tags, log),
        (None, Some(Tags::Any)) => Ok(Precondition::Absent),
        (None, Some(Tags::List(_))) => {
            Err(Problem::bad_request("`If-None-Match` of a write can only be `*`: that the target does not exist yet"))
        }
        (Some(_), Some(_)) => Err(Problem::bad_request("`If-Match` and `If-None-Match` exclude each other in a write")),
    }
}

/// The same for the text in one operation of a batch.
pub(super) fn of_operation(if_match: &str, log: LogMark) -> Result<Precondition> {
    match parse(if_match.as_bytes()) {
        Some(Tags::Any) => Ok(Precondition::Exists),
        Some(Tags::List(tags)) => one_of("if_match", &tags, log),
        None => Err(Problem::bad_request(format!(
            "`if_match` is `{}`, expected an entity tag in quotes, such as the `ETag` of a response",
            shorten(if_match)
        ))),
    }
}

/// A weak tag never matches in a write, nor does one of another log.
fn one_of(name: &str, tags: &[Tag], log: LogMark) -> Result<Precondition> {
    if tags.iter().all(|tag| tag.weak) {
        return Err(weak(name));
    }
    let strong = tags.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.entity);
    let seen = |entity: EntityTag| Seen { position: entity.position, version: entity.version };
    Ok(Precondition::At(strong.filter(|entity| entity.log == log).map(seen).collect()))
}

/// The problem for weak tags; reading again would not help.
fn weak(name: &str) -> Problem {
    let detail = format!(
        "`{name}` has weak entity tags only (`W/\"…\"`), which never match; send the `ETag` of the response, without `W/`"
    );
    Problem::new(ProblemType::PreconditionFailed, detail)
}

/// Whether to send the representation with this tag.
pub(super) fn of_read(headers: &HeaderMap, current: EntityTag) -> Result<Read> {
    if let Some(Tags::List(tags)) = tags(headers, IF_MATCH)?
        && !tags.iter().any(|tag| !tag.weak && tag.entity == Some(current))
    {
        if tags.iter().all(|tag| tag.weak) {
            return Err(weak("If-Match"));
        }
        let mut tag = Vec::new();
        current.write(&mut tag);
        let tag = String::from_utf8_lossy(&tag);
        return Err(Problem::new(
            ProblemType::PreconditionFailed,
            format!("`If-Match` does not match, the entity tag is {tag}"),
        ));
    }
    Ok(match tags(headers, IF_NONE_MATCH)? {
        Some(Tags::Any) => Read::NotModified,
        Some(Tags::List(tags)) if tags.iter().any(|tag| tag.entity == Some(current)) => Read::NotModified,
        _ => Read::Send,
    })
}

/// Whether a client already has the representation with this quoted tag: `If-None-Match` contains it, or is `*`.
pub(super) fn has_tag(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[derive(Debug, PartialEq)]
enum Tags {
    Any,
    List(Vec<Tag>),
}

#[derive(Debug, PartialEq)]
struct Tag {
    weak: bool,
    /// `None` for a tag that no server issued.
    entity: Option<EntityTag>,
}

/// All lines of a header together; `None` if there is none.
fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>> {
    let mut found = None;
    for value in headers.get_all(&name) {
        let line = parse(value.as_bytes()).ok_or_else(|| {
            let seen = String::from_utf8_lossy(value.as_bytes());
            Problem::bad_request(format!(
                "`{name}` is `{}`, expected `*` or entity tags in quotes, such as the `ETag` of a response",
                shorten(&seen)
            ))
        })?;
        found = Some(match (found, line) {
            (Some(Tags::List(mut all)), Tags::List(more)) => {
                all.extend(more);
                Tags::List(all)
            }
            (None, line) => line,
            _ => return Err(Problem::bad_request(format!("`{name}` has `*` beside other entity tags"))),
        });
    }
    Ok(found)
}

fn parse(value: &[u8]) -> Option<Tags> {
    let mut rest = value.trim_ascii();
    if rest == b"*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    // Empty elements are allowed in lists (RFC 9110, section 5.6.1), but not only empty ones.
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return (!tags.is_empty()).then_some(Tags::List(tags));
        }
        let (weak, quoted) = rest.strip_prefix(b"W/").map_or((false, rest), |quoted| (true, quoted));
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|byte| *byte == b'"')?;
        let (opaque, after) = (&inner[..end], &inner[end + 1..]);
        if !opaque.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..)) {
            return None;
        }
        tags.push(Tag { weak, entity: EntityTag::parse(opaque) });
        rest = after.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    const LOG: &str = "00000000-0000-7000-8000-000000000001";

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a header"));
        }
        headers
    }

    #[test]
    fn writes() {
        let check = |lines: &[(HeaderName, &str)], expected: Precondition| {
            assert_eq!(of_write(&headers(lines), LogMark::of(LOG)).expect("valid"), expected, "{lines:?}");
        };
        let at = |seen: &[(u64, u64)]| {
            Precondition::At(
                seen.iter().map(|(position, version)| Seen { position: *position, version: *version }).collect(),
            )
        };
        check(&[], Precondition::None);
        check(&[(IF_MATCH, " * ")], Precondition::Exists);
        check(&[(IF_MATCH, "\"00000001-12-1\"")], at(&[(12, 1)]));
        check(
            &[(IF_MATCH, "\"00000001-1-1\" , \"00000001-2-1\",,"), (IF_MATCH, "\"00000001-3-7\"")],
            at(&[(1, 1), (2, 1), (3, 7)]),
        );
        check(&[(IF_MATCH, "W/\"00000001-12-1\", \"00000001-2-1\"")], at(&[(2, 1)]));
        let weak = of_write(&headers(&[(IF_MATCH, "W/\"00000001-12-1\"")]), LogMark::of(LOG)).expect_err("weak");
        assert!(weak.kind == ProblemType::PreconditionFailed && weak.detail().contains("never match"), "{weak:?}");
        // Of another log, or of no server.
        check(&[(IF_MATCH, "\"00000002-12-1\", \"12\"")], Precondition::At(vec![]));
        check(&[(IF_MATCH, "\"abc\", \"00000001-012-1\", \"a,b\", \"\"")], Precondition::At(vec![]));
        check(&[(IF_NONE_MATCH, "*")], Precondition::Absent);
        for bad in ["", "12", "\"12", "12\"", "*, \"1\"", "\"1\" \"2\"", "w/\"1\"", "W/ \"1\"", ",", "\"a b\""] {
            assert!(of_write(&headers(&[(IF_MATCH, bad)]), LogMark::of(LOG)).is_err(), "{bad}");
        }
        let of = |lines: &[(HeaderName, &str)]| of_write(&headers(lines), LogMark::of(LOG));
        assert!(of(&[(IF_NONE_MATCH, "\"1\"")]).is_err());
        assert!(of(&[(IF_NONE_MATCH, "*"), (IF_MATCH, "*")]).is_err());
        assert!(of(&[(IF_MATCH, "*"), (IF_MATCH, "\"1\"")]).is_err());
    }

    #[test]
    fn reads() {
        let current = EntityTag { log: LogMark::of(LOG), position: 12, version: 3, besides: None };
        let read = |lines: &[(HeaderName, &str)]| of_read(&headers(lines), current);
        assert_eq!(read(&[]).expect("valid"), Read::Send);
        for other in ["\"00000001-11-3\"", "\"00000001-12-2\"", "\"00000002-12-3\"", "\"12\""] {
            assert_eq!(read(&[(IF_NONE_MATCH, other)]).expect("valid"), Read::Send, "{other}");
            assert!(read(&[(IF_MATCH, other)]).is_err(), "{other}");
        }
        let held = read(&[(IF_NONE_MATCH, "\"11\", W/\"00000001-12-3\"")]);
        assert_eq!(held.expect("valid"), Read::NotModified);
        assert_eq!(read(&[(IF_NONE_MATCH, "*")]).expect("valid"), Read::NotModified);
        assert_eq!(read(&[(IF_MATCH, "\"00000001-12-3\"")]).expect("valid"), Read::Send);
        assert!(read(&[(IF_MATCH, "W/\"00000001-12-3\"")]).is_err());
        assert!(read(&[(IF_NONE_MATCH, "12")]).is_err());
    }
}

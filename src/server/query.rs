//! The query of a URL, parsed strictly: unknown parameters are errors, so that a typo does not widen a result.

use std::borrow::Cow;
use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::problem::{Problem, Result};
use crate::engine::{FilterInput, FilterValue};
use crate::telemetry::line::shortened;

/// The name of the parameter for dry runs.
pub(super) const DRY_RUN: &str = "dry-run";

/// The name of the parameter for the minimum position of a read.
pub(super) const MIN_POSITION: &str = "min-position";

/// Parameters of one request. Reading one removes it; [`Query::finish`] rejects the rest.
pub(super) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self> {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(name, true)?, decode(value, true)?))
            })
            .collect::<Result<_>>()?;
        Ok(Query { pairs })
    }

    /// A parameter that may occur once.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<Cow<'a, str>>> {
        let Some(index) = self.pairs.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, value) = self.pairs.remove(index);
        if self.pairs.iter().any(|(key, _)| key == name) {
            return Err(Problem::bad_request(format!("the parameter `{name}` is set twice, expected one")));
        }
        Ok(Some(value))
    }

    /// The same, but an empty value is an error.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name)? {
            Some(value) if value.is_empty() => {
                Err(Problem::bad_request(format!("the parameter `{name}` is empty, expected a value")))
            }
            value => Ok(value.map(Cow::into_owned)),
        }
    }

    /// A comma-separated list, which may also be written as several parameters of that name.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<String>> {
        let (found, rest) = std::mem::take(&mut self.pairs).into_iter().partition::<Vec<_>, _>(|(key, _)| key == name);
        self.pairs = rest;
        if found.iter().any(|(_, value)| value.is_empty()) {
            return Err(Problem::bad_request(format!("the parameter `{name}` is empty, expected a value")));
        }
        let joined = found.iter().map(|(_, value)| &**value).collect::<Vec<_>>().join(",");
        Ok((!found.is_empty()).then_some(joined))
    }

    /// `true` or `false`; absent is `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool> {
        match self.take(name)?.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                Err(Problem::bad_request(format!("`{name}` is `{}`, expected `true` or `false`", shorten(other))))
            }
        }
    }

    pub(super) fn number(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        match text.parse() {
            // `parse` accepts a plus sign.
            Ok(number) if (least..=most).contains(&number) && text.as_bytes()[0].is_ascii_digit() => Ok(Some(number)),
            _ => Err(Problem::bad_request(format!(
                "`{name}` is `{}`, expected a number from {least} to {most}",
                shorten(&text)
            ))),
        }
    }

    /// Every `filter[path][op]=value`, and `filter[or][0][path][op]=value` for groups of which at least one must match.
    pub(super) fn filters(&mut self) -> Result<FilterInput> {
        let (filters, rest) =
            std::mem::take(&mut self.pairs).into_iter().partition::<Vec<_>, _>(|(key, _)| key.starts_with("filter"));
        self.pairs = rest;
        let mut group = Group::default();
        for (key, value) in filters {
            let wrong = || {
                Problem::bad_request(format!("`{}` is not a filter, expected `filter[path][op]=value`", shorten(&key)))
            };
            let inner = key.strip_prefix("filter[").and_then(|key| key.strip_suffix(']')).ok_or_else(wrong)?;
            let (target, inner) = group.find(inner, &key)?;
            let (path, operator) = filter_key(inner).ok_or_else(wrong)?;
            target.conditions.push(FilterInput::Condition {
                path: path.to_owned(),
                operator: operator.to_owned(),
                value: FilterValue::Text(value.into_owned()),
            });
        }
        Ok(group.into_filter())
    }

    /// Rejects unread parameters.
    pub(super) fn finish(self) -> Result<()> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) if name == DRY_RUN => {
                Err(Problem::bad_request("`dry-run` is not available for this request, only for writes that hooks see"))
            }
            Some((name, _)) => Err(Problem::bad_request(format!("unknown parameter `{}`", shorten(name)))),
        }
    }
}

/// Maximum nesting of `or`.
const OR_DEPTH_MAX: usize = 3;

/// Filters that must all match.
#[derive(Default)]
struct Group {
    conditions: Vec<FilterInput>,
    /// At least one of these must match, by the client's number.
    either: BTreeMap<u32, Group>,
}

impl Group {
    /// The group of a filter, according to its `or` prefixes and their numbers, and the rest of its key.
    fn find<'k>(&mut self, inner: &'k str, key: &str) -> Result<(&mut Group, &'k str)> {
        let (mut group, mut rest) = (self, inner);
        for _ in 0..OR_DEPTH_MAX {
            let Some((number, behind)) = or_number(rest) else { return Ok((group, rest)) };
            let number = number.parse().map_err(|_| {
                Problem::bad_request(format!("`{}`: `or` is numbered from 0 to {}", shorten(key), u32::MAX))
            })?;
            group = group.either.entry(number).or_default();
            rest = behind;
        }
        match or_number(rest) {
            None => Ok((group, rest)),
            Some(_) => Err(Problem::bad_request(format!(
                "`{}`: `or` is nested more than {OR_DEPTH_MAX} levels deep",
                shorten(key)
            ))),
        }
    }

    fn into_filter(self) -> FilterInput {
        let mut parts = self.conditions;
        if !self.either.is_empty() {
            parts.push(FilterInput::Or(self.either.into_values().map(Group::into_filter).collect()));
        }
        FilterInput::And(parts)
    }
}

/// The number in `or][NUMBER][REST`, and the rest. Without a number it is a property of that name.
fn or_number(text: &str) -> Option<(&str, &str)> {
    let (number, rest) = text.strip_prefix("or][")?.split_once("][")?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some((number, rest))
}

/// The path may contain brackets, since names of properties may. The operator is in the last pair of them.
fn filter_key(inner: &str) -> Option<(&str, &str)> {
    let (path, operator) = inner.rsplit_once("][")?;
    let plain = !operator.is_empty() && operator.bytes().all(|byte| byte.is_ascii_lowercase());
    (plain && !path.is_empty()).then_some((path, operator))
}

/// Percent-decoding that rejects invalid escapes and invalid UTF-8. In a query a plus is a space.
pub(super) fn decode(text: &str, plus_is_space: bool) -> Result<Cow<'_, str>> {
    if !text.contains(['%', '+']) {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let is_escape =
        |at: usize| matches!(bytes.get(at + 1..at + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit());
    if let Some(at) = (0..bytes.len()).find(|at| bytes[*at] == b'%' && !is_escape(*at)) {
        return Err(Problem::bad_request(format!("`%` at offset {at} of `{}` is not a valid escape", shorten(text))));
    }
    let spaced =
        if plus_is_space && text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded
        .map(|decoded| Cow::Owned(decoded.into_owned()))
        .map_err(|_| Problem::bad_request(format!("`{}` does not decode to UTF-8", shorten(text))))
}

/// Text from a client, shortened for a message.
pub(super) fn shorten(text: &str) -> Cow<'_, str> {
    shortened(text, 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Query<'_> {
        Query::parse(text).expect("valid")
    }

    #[track_caller]
    fn detail<T>(result: Result<T>, expected: &str) {
        match result {
            Ok(_) => panic!("must be refused"),
            Err(problem) => assert!(format!("{problem:?}").contains(expected), "{problem:?}"),
        }
    }

    #[test]
    fn takes_and_refuses() {
        let mut query = parse("limit=5&a=x%20y+z&b=&&c");
        assert_eq!(query.number("limit", 1, 10).expect("valid"), Some(5));
        assert_eq!(query.take("a").expect("valid").as_deref(), Some("x y z"));
        assert_eq!(query.take("b").expect("valid").as_deref(), Some(""));
        assert_eq!(query.take("nothing").expect("valid"), None);
        detail(query.finish(), "unknown parameter `c`");
        parse("").finish().expect("nothing is left");
        detail(parse("a=1&a=2").take("a"), "twice");
        detail(parse("dry-run=true").finish(), "not available");
    }

    #[test]
    fn numbers_and_flags() {
        for bad in ["n=", "n=0", "n=11", "n=+5", "n=-1", "n=1.0", "n=%C2%B2", "n=99999999999999999999999"] {
            detail(parse(bad).number("n", 1, 10), "expected a number from 1 to 10");
        }
        assert!(parse("f=true").flag("f").expect("valid"));
        assert!(!parse("f=false").flag("f").expect("valid"));
        detail(parse("f=1").flag("f"), "expected `true` or `false`");
    }

    #[test]
    fn filters() {
        let take = |text: &'static str| -> Result<Vec<(String, String)>> {
            let FilterInput::And(parts) = parse(text).filters()? else { panic!("{text} is joined otherwise") };
            let condition = |part| match part {
                FilterInput::Condition { path, operator, .. } => (path, operator),
                other => panic!("{other:?} is no condition"),
            };
            Ok(parts.into_iter().map(condition).collect())
        };
        let one = |path: &str, operator: &str| vec![(path.to_owned(), operator.to_owned())];
        assert_eq!(take("filter[a.b][eq]=1").expect("valid"), one("a.b", "eq"));
        assert_eq!(take("filter%5BUS%20Gross%5D%5Bgte%5D=1").expect("valid"), one("US Gross", "gte"));
        assert_eq!(take("filter[a[0]][x][eq]=1").expect("valid"), one("a[0]][x", "eq"));
        assert_eq!(take("filter[a][gt]=1&filter[a][lt]=5").expect("valid").len(), 2);
        for bad in [
            "filter=1",
            "filter[a]=1",
            "filter[a][]=1",
            "filter[][eq]=1",
            "filter[a][eq=1",
            "filter[a]eq]=1",
            "filters[a][eq]=1",
            "filter[a][eq]x=1",
            "filter[a][Eq]=1",
        ] {
            detail(take(bad), "expected `filter[path][op]=value`");
        }
    }

    #[test]
    fn alternatives() {
        fn shown(filter: &FilterInput) -> String {
            let all = |parts: &[FilterInput]| parts.iter().map(shown).collect::<Vec<_>>().join(" ");
            match filter {
                FilterInput::Condition { path, operator, .. } => format!("{path}.{operator}"),
                FilterInput::And(parts) => format!("({})", all(parts)),
                FilterInput::Or(parts) => format!("or[{}]", all(parts)),
                FilterInput::Not(part) => format!("not {}", shown(part)),
            }
        }
        for (text, expected) in [
            ("filter[or][0][a][eq]=1&filter[or][1][b][gt]=2", "(or[(a.eq) (b.gt)])"),
            ("filter[or][7][a][eq]=1&filter[c][eq]=3&filter[or][7][b][eq]=2", "(c.eq or[(a.eq b.eq)])"),
            ("filter[or][0][or][0][or][0][a][eq]=1", "(or[(or[(or[(a.eq)])])])"),
            ("filter[or][eq]=1&filter[or][x][eq]=1", "(or.eq or][x.eq)"),
            ("filter[or][0][or][eq]=1", "(or[(or.eq)])"),
        ] {
            assert_eq!(shown(&parse(text).filters().expect(text)), expected, "{text}");
        }
        detail(parse("filter[or][0][or][0][or][0][or][0][a][eq]=1").filters(), "more than 3 levels deep");
        detail(parse("filter[or][99999999999][a][eq]=1").filters(), "numbered from 0");
        detail(parse("filter[or][0][eq]=1").filters(), "expected `filter[path][op]=value`");
    }

    #[test]
    fn escapes() {
        assert_eq!(decode("%41+%c3%a9", false).expect("valid"), "A+é");
        for bad in ["%", "%4", "%zz", "a%+1", "%é"] {
            detail(decode(bad, true), "is not a valid escape");
        }
        detail(decode("%ff", true), "UTF-8");
    }
}

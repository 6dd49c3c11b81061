//! The models that a caller may use.

use std::sync::Arc;

use crate::glob;

/// Maximum number of patterns of one caller: each is compared with the model of every event that the caller follows.
pub const PATTERNS_MAX: usize = 100;
/// Longest pattern. The id of a model has at most 63 characters.
pub const PATTERN_BYTES_MAX: usize = 128;

/// Ids of models, or globs of them. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Option<Arc<[String]>>);

impl Scope {
    /// All models.
    pub const ALL: Scope = Scope(None);

    /// The models that match one of the patterns. An error names the invalid pattern.
    pub fn new(patterns: Vec<String>) -> Result<Scope, String> {
        if patterns.is_empty() {
            return Err("`models` is empty, which allows no model; expected ids or globs, or `*` for all".to_owned());
        }
        if patterns.len() > PATTERNS_MAX {
            return Err(format!("`models` has {} entries, expected at most {PATTERNS_MAX}", patterns.len()));
        }
        if let Some(bad) = patterns.iter().find(|pattern| !is_pattern(pattern)) {
            let shown: String = bad.chars().take(PATTERN_BYTES_MAX).collect();
            return Err(format!(
                "`{}` in `models` is not a model id or glob, expected 1 to {PATTERN_BYTES_MAX} of a-z, 0-9, `_`, `-`, \
                 and `*` for any text",
                shown.escape_debug()
            ));
        }
        match patterns.iter().any(|pattern| pattern == "*") {
            true => Ok(Scope::ALL),
            false => Ok(Scope(Some(patterns.into()))),
        }
    }

    pub fn allows(&self, model: &str) -> bool {
        self.0.as_deref().is_none_or(|patterns| glob::any_matches(patterns, model))
    }

    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// The patterns as shown and stored; `*` stands for all models.
    pub fn patterns(&self) -> Vec<String> {
        self.0.as_deref().map_or_else(|| vec!["*".to_owned()], <[String]>::to_vec)
    }
}

fn is_pattern(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*".contains(&byte);
    !text.is_empty() && text.len() <= PATTERN_BYTES_MAX && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(patterns: &[&str]) -> Result<Scope, String> {
        Scope::new(patterns.iter().map(|pattern| (*pattern).to_owned()).collect())
    }

    #[test]
    fn patterns_allow_what_they_describe() {
        let rows: [(&[&str], &str, bool); 8] = [
            (&["order"], "order", true),
            (&["order"], "orders", false),
            (&["order"], "", false),
            (&["audit-*"], "audit-7", true),
            (&["audit-*"], "my-audit-7", false),
            (&["order", "*-log"], "hook-log", true),
            (&["order", "*"], "anything", true),
            (&["*"], "anything", true),
        ];
        for (patterns, model, expected) in rows {
            assert_eq!(scope(patterns).unwrap().allows(model), expected, "{patterns:?} on {model}");
        }
        assert!(Scope::ALL.allows("x"));
        assert_eq!(scope(&["order", "*"]).unwrap().patterns(), ["*"]);
        assert_eq!(scope(&["b", "a*"]).unwrap().patterns(), ["b", "a*"]);
    }

    #[test]
    fn bad_lists_are_rejected() {
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        for bad in ["", "A", "a b", "a/b", "a?", "ä", "a\n", &long] {
            let reason = scope(&["ok", bad]).unwrap_err();
            assert!(reason.contains("is not a model id or glob") && !reason.contains('\n'), "{reason}");
        }
        assert!(scope(&[]).unwrap_err().contains("empty"));
        assert!(scope(&vec!["a"; PATTERNS_MAX]).is_ok());
        assert!(scope(&vec!["a"; PATTERNS_MAX + 1]).unwrap_err().contains("101"));
    }
}

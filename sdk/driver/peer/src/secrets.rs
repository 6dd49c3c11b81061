//! The secrets that no message may show: peers and gateways echo tokens, headers and addresses in their responses.

use std::fmt;
use std::sync::Arc;

use crate::escape::escape;

/// How many characters of a text a message quotes.
const QUOTED_CHARS: usize = 200;

const REDACTED: &str = "[redacted]";

/// The secrets of one peer, each in all forms in which it may be echoed.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<[String]>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// These secrets and more.
    pub(crate) fn and(&self, more: impl Iterator<Item = String>) -> Secrets {
        let forms = |secret: String| {
            let in_json = secret.replace('\\', "\\\\").replace('"', "\\\"");
            [escape(&secret), secret, in_json.replace('/', "\\/"), in_json]
        };
        let more = more.filter(|secret| !secret.is_empty()).flat_map(forms);
        let mut all: Vec<String> = self.0.iter().cloned().chain(more).collect();
        // Longer ones first: if one secret begins with another, its end must not remain.
        all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        all.dedup();
        Secrets(all.into())
    }

    /// The beginning of a text, without secrets and without control characters. `is_cut` means that the text is
    /// truncated, so it may end in the middle of a secret.
    pub(crate) fn quote(&self, text: &str, is_cut: bool) -> String {
        let (mut shown, mut count, mut rest) = (String::new(), 0, text.trim());
        while let Some(char) = rest.chars().next() {
            if count >= QUOTED_CHARS {
                shown.push('…');
                break;
            }
            match self.leading(rest, is_cut) {
                Some(bytes) => {
                    shown.push_str(REDACTED);
                    count += REDACTED.len();
                    rest = &rest[bytes..];
                }
                None => {
                    shown.push(if char.is_control() { ' ' } else { char });
                    count += 1;
                    rest = &rest[char.len_utf8()..];
                }
            }
        }
        shown
    }

    /// The length in bytes of the secret that the text begins with.
    fn leading(&self, text: &str, is_cut: bool) -> Option<usize> {
        self.0.iter().find_map(|secret| match text.starts_with(secret.as_str()) {
            true => Some(secret.len()),
            false => (is_cut && secret.starts_with(text)).then_some(text.len()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hiding(texts: &[&str]) -> Secrets {
        Secrets::default().and(texts.iter().map(|text| (*text).to_owned()))
    }

    #[test]
    fn secrets_are_left_out_in_every_form() {
        let secrets = hiding(&["hid/den\"x", "hid", "hidden", ""]);
        let long = format!("{} hidden", "x".repeat(198));
        for (text, is_cut, expected) in [
            (" a hidden b ", false, "a [redacted] b"),
            ("hidhidden", false, "[redacted][redacted]"),
            (r#"{"t":"hid\/den\"x"}"#, false, r#"{"t":"[redacted]"}"#),
            (r#"{"t":"hid/den\"x"}"#, false, r#"{"t":"[redacted]"}"#),
            ("/?t=hid%2Fden%22x", false, "/?t=[redacted]"),
            ("t: hi", true, "t: [redacted]"),
            ("t: hi", false, "t: hi"),
            ("a\u{1b}[31m\nb", false, "a [31m b"),
            (long.as_str(), false, &format!("{} [redacted]", "x".repeat(198))),
            (&"é".repeat(201), false, &format!("{}…", "é".repeat(200))),
        ] {
            assert_eq!(secrets.quote(text, is_cut), expected, "{text}");
        }
        let echoed = hiding(&[&"hidden".repeat(50)]).quote(&"hidden".repeat(5000), true);
        assert!(!echoed.contains("hidden") && echoed.len() < 300, "{echoed}");
    }
}

//! The text of a token: `snap_`, 256 random bits, and a checksum.
//!
//! The prefix lets scanners find leaked tokens (`snap_[A-Za-z0-9_-]{49}`), and the checksum distinguishes typing errors
//! from unknown tokens. Neither is secret; only the bits between them are.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest as hash};
use ring::rand::{SecureRandom, SystemRandom};

pub(super) const PREFIX: &str = "snap_";
const RANDOM_BYTES: usize = 32;
const RANDOM_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
pub(super) const CHARS: usize = PREFIX.len() + RANDOM_CHARS + CHECKSUM_CHARS;

/// A SHA-256 digest.
pub(super) type Digest = [u8; 32];

/// A new token. Its text never appears in messages or `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(String);

impl TokenText {
    /// `None` if the system provides no random numbers.
    pub(super) fn generate() -> Option<TokenText> {
        let mut random = [0; RANDOM_BYTES];
        SystemRandom::new().fill(&mut random).ok()?;
        let mut text = String::with_capacity(CHARS);
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(random, &mut text);
        let sum = checksum(text.as_bytes());
        text.extend(sum.map(char::from));
        Some(TokenText(text))
    }

    /// The text. The caller must make sure that only the token's owner gets it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub(super) fn digest(&self) -> Digest {
        digest(self.0.as_bytes())
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(…)")
    }
}

/// Whether a text has the form of a token and the right checksum.
pub(super) fn is_token(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    let Some((body, sum)) = text.split_last_chunk::<CHECKSUM_CHARS>() else { return false };
    text.len() == CHARS && body.starts_with(PREFIX.as_bytes()) && body.iter().all(is_part) && checksum(body) == *sum
}

pub(super) fn digest(text: &[u8]) -> Digest {
    let mut bytes = Digest::default();
    bytes.copy_from_slice(hash(&SHA256, text).as_ref());
    bytes
}

fn checksum(text: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut chars = [b'A'; CHECKSUM_CHARS];
    // Four bytes always encode to exactly these characters.
    let _ = URL_SAFE_NO_PAD.encode_slice(crc32fast::hash(text).to_be_bytes(), &mut chars);
    chars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_their_form_and_never_repeat() {
        let tokens: Vec<TokenText> = (0..100).map(|_| TokenText::generate().unwrap()).collect();
        for token in &tokens {
            let text = token.expose();
            assert!(text.len() == 54 && text.starts_with("snap_") && is_token(text.as_bytes()), "{text}");
            assert_eq!(format!("{token:?}"), "TokenText(…)");
        }
        assert!(tokens.iter().enumerate().all(|(at, token)| !tokens[..at].contains(token)));
    }

    #[test]
    fn every_typing_error_is_found() {
        let token = TokenText::generate().unwrap();
        let text = token.expose().as_bytes();
        for at in 0..CHARS {
            for other in *b"aB0-_ =\0\xff" {
                let mut wrong = text.to_vec();
                wrong[at] = other;
                assert_eq!(is_token(&wrong), text[at] == other, "{at} {other}");
            }
            assert!(!is_token(&text[..at]));
            if at > 0 && text[at] != text[at - 1] {
                let mut swapped = text.to_vec();
                swapped.swap(at, at - 1);
                assert!(!is_token(&swapped), "{at}");
            }
        }
        assert!(!is_token(&[text, b"A"].concat()));
    }

    #[test]
    fn a_known_token_keeps_its_checksum() {
        let body = format!("snap_{}", "A".repeat(43));
        let sum = String::from_utf8(checksum(body.as_bytes()).to_vec()).unwrap();
        let by_hand = URL_SAFE_NO_PAD.encode(crc32fast::hash(body.as_bytes()).to_be_bytes());
        assert_eq!(sum, by_hand);
        assert!(is_token(format!("{body}{sum}").as_bytes()));
    }
}

//! Compares tokens without revealing anything about them through timing.

use sha2::{Digest as _, Sha256};

/// The digest of the token: compared values have the same length, and callers cannot probe them byte by byte.
pub(super) struct Token([u8; 32]);

impl Token {
    pub(super) fn new(token: &str) -> Token {
        Token(Sha256::digest(token).into())
    }

    /// Whether an `Authorization` header contains it.
    pub(super) fn is_carried_by(&self, header: &[u8]) -> bool {
        let Some(space) = header.iter().position(|byte| *byte == b' ') else { return false };
        let (scheme, token) = header.split_at(space);
        let found: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        let difference = self.0.iter().zip(found).fold(0, |difference, (a, b)| difference | (a ^ b));
        scheme.eq_ignore_ascii_case(b"bearer") && difference == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself() {
        assert!(Token::new("hünter").is_carried_by("Bearer hünter".as_bytes()));
        let token = Token::new("hunter2");
        for (header, is_it) in [
            ("Bearer hunter2", true),
            ("bearer hunter2", true),
            ("Bearer hunter", false),
            ("Bearer ", false),
            ("Basic hunter2", false),
            ("hunter2", false),
        ] {
            assert_eq!(token.is_carried_by(header.as_bytes()), is_it, "{header}");
        }
    }
}

//! JSON numbers by value, however many digits they have.

use std::cmp::Ordering;

/// A number as sign, magnitude and digits: `0.DIGITS × 10^magnitude`, digits without zeros at either end.
///
/// Invariant: zero has no digits, is not negative and has magnitude 0.
#[derive(PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    magnitude: i64,
    digits: Vec<u8>,
}

impl Decimal {
    /// Takes the text of a JSON number.
    pub(crate) fn parse(text: &str) -> Decimal {
        let (negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        digits.drain(..leading);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Decimal { negative: false, magnitude: 0, digits };
        }
        let magnitude = exponent.saturating_add(whole.len() as i64).saturating_sub(leading as i64);
        Decimal { negative, magnitude, digits }
    }

    /// Compares the distances from zero.
    fn cmp_size(&self, other: &Decimal) -> Ordering {
        match (self.digits.is_empty(), other.digits.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.magnitude.cmp(&other.magnitude).then_with(|| self.digits.cmp(&other.digits)),
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        match (self.negative, other.negative) {
            (false, false) => self.cmp_size(other),
            (true, true) => other.cmp_size(self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// An exponent that exceeds the range is so large that only its sign matters.
fn parse_exponent(text: &str) -> i64 {
    text.strip_prefix('+').unwrap_or(text).parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX })
}

/// First byte of zero's key. Keys of negative numbers begin below it, those of positive ones above it.
const ZERO: u8 = 0x80;
/// First byte of a positive number with magnitude 0. Each magnitude within [`NEAR`] of it has its own first byte.
const UNIT: u8 = 0xc0;
const NEAR: i64 = 0x2f;
/// First bytes of numbers with other magnitudes; eight bytes of magnitude follow.
const TINY: u8 = UNIT - NEAR as u8 - 1;
const HUGE: u8 = UNIT + NEAR as u8 + 1;

/// A key for the text of a JSON number: bytes with the same order and equality as the numbers. For drivers whose
/// database has no number type with enough digits.
pub fn number_key(text: &str) -> Vec<u8> {
    let Decimal { negative, magnitude, digits } = Decimal::parse(text);
    if digits.is_empty() {
        return vec![ZERO];
    }
    let mut key = Vec::with_capacity(digits.len() / 2 + 4);
    if (-NEAR..=NEAR).contains(&magnitude) {
        key.push((i64::from(UNIT) + magnitude) as u8);
    } else {
        key.push(if magnitude < 0 { TINY } else { HUGE });
        // Flipping the sign bit gives the bytes the order of the integers.
        key.extend_from_slice(&(magnitude as u64 ^ (1 << 63)).to_be_bytes());
    }
    // Two digits per byte. No byte is 0, so that a prefix of another key sorts before it.
    key.extend(digits.chunks(2).map(|pair| {
        let second = pair.get(1).map_or(0, |digit| digit - b'0');
        (pair[0] - b'0') * 10 + second + 1
    }));
    if negative {
        // Negative numbers sort in reverse; the last byte is greater than any digit of a longer key.
        key.iter_mut().for_each(|byte| *byte = !*byte);
        key.push(0xff);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_and_equal_as_numbers_do() {
        let mut texts: Vec<String> = [
            "0",
            "-0",
            "0.0",
            "0e5",
            "1",
            "1.0",
            "1e0",
            "10e-1",
            "0.1e1",
            "-1",
            "-1.0",
            "5",
            "5.01",
            "5.010",
            "51",
            "50",
            "501",
            "9007199254740992",
            "9007199254740993",
            "9007199254740993.0",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551616",
            "1e400",
            "1e-400",
            "-1e400",
            "-1e-400",
            "1e46",
            "1e47",
            "1e48",
            "1e-46",
            "1e-47",
            "1e-48",
            "1e-49",
            "1e99999999999999999999",
            "-1e99999999999999999999",
            "1e-99999999999999999999",
            "0.1",
            "0.10000000000000000001",
            "-0.1",
            "-0.10000000000000000001",
            "99",
            "9.9",
            "-99",
            "-9.9",
            "-99.5",
        ]
        .map(str::to_owned)
        .to_vec();
        // Numbers from a fixed seed, many of them close to each other.
        let mut state = 7_u64;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..400 {
            let sign = ["", "-"][random(2) as usize];
            let bits = [3, 10, 31][random(3) as usize];
            let (whole, fraction) = (random(1 << bits), random(1000));
            let exponent =
                [String::new(), format!("e{}", random(100)), format!("e-{}", random(100))][random(3) as usize].clone();
            texts.push(format!("{sign}{whole}.{fraction:03}{exponent}"));
        }
        for left in &texts {
            for right in &texts {
                let expected = Decimal::parse(left).cmp(&Decimal::parse(right));
                assert_eq!(number_key(left).cmp(&number_key(right)), expected, "{left} to {right}");
            }
        }
    }
}

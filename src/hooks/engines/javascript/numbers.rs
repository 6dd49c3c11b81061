//! Converts the text of a number as JavaScript does.

/// The infinite number marked by a quoted text.
pub(super) fn infinite(quoted: &str, marker: &str) -> Option<f64> {
    let word = quoted.strip_prefix('"')?.strip_suffix('"')?;
    match word.strip_prefix(marker).filter(|_| !marker.is_empty())? {
        "+" => Some(f64::INFINITY),
        "-" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

/// As JavaScript reads it: out of range is infinite. Minus zero is zero, as it is written.
pub(super) fn value_of(number: &str) -> f64 {
    let value: f64 = number.parse().unwrap_or(f64::NAN);
    if value == 0.0 { 0.0 } else { value }
}

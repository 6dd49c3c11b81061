//! Trace Context (W3C): the headers `traceparent` and `tracestate`.
//!
//! A client's headers are checked byte by byte. Invalid ones are ignored, as the specification requires: the request
//! then starts a new trace.

use std::fmt;
use std::sync::Arc;

/// Bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// Bounds of a `tracestate`, those of the specification.
const STATE_BYTES_MAX: usize = 512;
const STATE_MEMBERS_MAX: usize = 32;
const KEY_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: usize = 256;

const SAMPLED: u8 = 1;

/// A position in a trace: spans there have this span as their parent. Neither id is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: u128,
    pub span: u64,
    /// Whether the trace is sampled.
    pub is_sampled: bool,
    /// The state of other systems.
    pub state: Option<Arc<str>>,
}

impl TraceContext {
    /// Reads the headers' values; `None` if the first one is not valid. An invalid `tracestate` is dropped.
    pub fn parse<'a>(traceparent: &str, tracestate: impl IntoIterator<Item = &'a str>) -> Option<TraceContext> {
        let bytes = traceparent.as_bytes();
        let parts: [&[u8]; 4] = [bytes.get(..2)?, bytes.get(3..35)?, bytes.get(36..52)?, bytes.get(53..LENGTH)?];
        if [2, 35, 52].iter().any(|dash| bytes[*dash] != b'-') {
            return None;
        }
        let [version, trace, span, flags] = parts.map(hex);
        // A later version may have more after another dash.
        match version? {
            0 if bytes.len() != LENGTH => return None,
            255 => return None,
            _ if bytes.len() > LENGTH && bytes[LENGTH] != b'-' => return None,
            _ => {}
        }
        let (trace, span) = (trace?, span? as u64);
        if trace == 0 || span == 0 {
            return None;
        }
        let is_sampled = flags? as u8 & SAMPLED != 0;
        Some(TraceContext { trace, span, is_sampled, state: state(tracestate) })
    }

    /// The value of `traceparent`.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }

    /// Both in one text, as in events: the second after a space.
    pub fn to_text(&self) -> String {
        let mut text = self.traceparent();
        if let Some(state) = &self.state {
            text.push(' ');
            text.push_str(state);
        }
        text
    }

    /// The reverse of [`TraceContext::to_text`].
    pub fn from_text(text: &str) -> Option<TraceContext> {
        match text.split_once(' ') {
            Some((parent, state)) => TraceContext::parse(parent, [state]),
            None => TraceContext::parse(text, []),
        }
    }

    /// The id of the trace, for logs and headers.
    pub fn trace_id(&self) -> impl fmt::Display + use<> {
        HexId(self.trace)
    }
}

struct HexId(u128);

impl fmt::Display for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Lower case only, as specified.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// All `tracestate` headers combined; `None` if they are empty or invalid.
fn state<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Arc<str>> {
    let mut whole = String::new();
    let mut members = 0;
    for member in
        headers.into_iter().flat_map(|header| header.split(',')).map(|member| member.trim_matches([' ', '\t']))
    {
        if member.is_empty() {
            continue;
        }
        let (key, value) = member.split_once('=')?;
        members += 1;
        let bytes = whole.len() + usize::from(!whole.is_empty()) + member.len();
        if members > STATE_MEMBERS_MAX || bytes > STATE_BYTES_MAX || !is_key(key) || !is_value(value) {
            return None;
        }
        if !whole.is_empty() {
            whole.push(',');
        }
        whole.push_str(member);
    }
    (!whole.is_empty()).then(|| whole.into())
}

fn is_key(key: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = key.bytes();
    key.len() <= KEY_BYTES_MAX
        && bytes.next().is_some_and(is_first)
        && bytes.all(|byte| is_first(byte) || b"_-*/@".contains(&byte))
}

fn is_value(value: &str) -> bool {
    (1..=VALUE_BYTES_MAX).contains(&value.len())
        && value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_valid_comes_back() {
        let context = TraceContext::parse(GOOD, ["a=1, b@c=x y", "", "d/e=2"]).unwrap();
        assert_eq!((context.trace, context.span), (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7));
        assert!(context.is_sampled);
        assert_eq!(context.traceparent(), GOOD);
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.to_text(), format!("{GOOD} a=1,b@c=x y,d/e=2"));
        assert_eq!(TraceContext::from_text(&context.to_text()), Some(context));
        let unsampled = GOOD.replace("-01", "-00");
        let context = TraceContext::from_text(&unsampled).unwrap();
        assert_eq!((context.is_sampled, context.to_text()), (false, unsampled));
        // Unknown flags and versions.
        assert!(TraceContext::parse(&GOOD.replace("-01", "-ff"), []).unwrap().is_sampled);
        assert!(TraceContext::parse(&format!("cc{}", &GOOD[2..]), []).is_some());
        assert!(TraceContext::parse(&format!("cc{}-what", &GOOD[2..]), []).is_some());
    }

    #[test]
    fn what_is_not_is_ignored() {
        for bad in [
            String::new(),
            GOOD[..54].to_owned(),
            format!("{GOOD}0"),
            format!("{GOOD}-00"),
            format!("cc{}0", &GOOD[2..]),
            GOOD.to_uppercase(),
            GOOD.replace("00-4", "ff-4"),
            GOOD.replace('-', "_"),
            GOOD.replace("-01", "-0g"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace("00f067aa0ba902b7", "+0f067aa0ba902b7"),
            format!(" {}", &GOOD[1..]),
            "ü".repeat(28),
            "é-".repeat(100_000),
        ] {
            assert_eq!(TraceContext::parse(&bad, []), None, "{}", bad.chars().take(60).collect::<String>());
        }
    }

    #[test]
    fn a_state_that_is_not_valid_is_left_out() {
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=v")).collect();
        for bad in [
            "a".to_owned(),
            "=1".to_owned(),
            "a=".to_owned(),
            "A=1".to_owned(),
            "a=1=2".to_owned(),
            "a=\n".to_owned(),
            "a=ü".to_owned(),
            format!("a={}", "x".repeat(257)),
            format!("{}=1", "a".repeat(257)),
            format!("a={0},b={0},c=1", "x".repeat(255)),
            many.join(","),
        ] {
            let context = TraceContext::parse(GOOD, [bad.as_str()]).unwrap();
            assert_eq!(context.state, None, "{bad}");
        }
    }
}

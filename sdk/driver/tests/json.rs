//! Compares the JSON reader with a parser that shares no code with it, on random texts for a limited time.
//!
//! `SNAPHOOK_FUZZ_SECONDS` sets the time, `SNAPHOOK_TEST_SEED` the first seed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use snaphook_driver::Json;
use snaphook_driver::json::{DEPTH_MAX, Fault, Tree as Field, from_tree, parse, parse_bytes, to_tree, typed};
use snaphook_driver_testkit::json::{Generator, Tree, reference};

const SECONDS_DEFAULT: u64 = 3;
/// Texts between two checks of the clock.
const ROUND: u64 = 200;

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}`, expected a whole number")))
}

#[test]
fn the_reader_agrees_with_an_independent_parser() {
    let seconds = number_of("SNAPHOOK_FUZZ_SECONDS").unwrap_or(SECONDS_DEFAULT);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let first = number_of("SNAPHOOK_TEST_SEED").unwrap_or(clock);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut texts, mut accepted) = (0u64, 0u64);
    loop {
        for seed in first + texts..first + texts + ROUND {
            let checked = std::panic::catch_unwind(|| check(seed));
            match checked {
                Ok(damaged_accepted) => accepted += u64::from(damaged_accepted),
                Err(panic) => {
                    println!("seed {seed}; SNAPHOOK_TEST_SEED={seed} draws the same again");
                    std::panic::resume_unwind(panic);
                }
            }
        }
        texts += ROUND;
        if Instant::now() >= end {
            break;
        }
    }
    println!("{texts} values, each whole and damaged, from seed {first}; {accepted} damaged ones were JSON");
    assert!(accepted > 0 && accepted < texts, "damage must leave some texts JSON and others not");
}

/// Checks one value, and one damaged text of it. Returns whether the damaged text was accepted.
fn check(seed: u64) -> bool {
    let mut generator = Generator::new(seed);
    let depth = if generator.one_in(50) { 300 } else { 5 };
    let tree = match depth {
        300 => nested(&mut generator),
        depth => generator.value(depth),
    };
    let text = generator.write(&tree, true);
    same(text.as_bytes(), Some(&tree));
    let damaged = generator.damage(&text);
    same(&damaged, None)
}

fn nested(generator: &mut Generator) -> Tree {
    let mut tree = generator.value(1);
    for _ in 0..generator.below(DEPTH_MAX + 20) {
        tree = if generator.one_in(2) { Tree::List(vec![tree]) } else { Tree::Object(vec![(generator.name(), tree)]) };
    }
    tree
}

/// Number of digits of the longest exponent, without leading zeros.
fn largest_exponent(tree: &Tree) -> usize {
    match tree {
        Tree::Number(text) => {
            let exponent = text.split_once(['e', 'E']).map_or("", |(_, exponent)| exponent);
            exponent.trim_start_matches(['+', '-']).trim_start_matches('0').len()
        }
        Tree::List(items) => items.iter().map(largest_exponent).max().unwrap_or(0),
        Tree::Object(members) => members.iter().map(|(_, value)| largest_exponent(value)).max().unwrap_or(0),
        _ => 0,
    }
}

/// Checks that both parsers agree about a text. Returns whether it is JSON.
fn same(bytes: &[u8], written: Option<&Tree>) -> bool {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let expected = reference(bytes);
    if let Some(written) = written {
        assert_eq!(expected.as_ref(), Ok(written), "the other parser reads {}", shown());
    }
    let found = match (parse_bytes(bytes), &expected) {
        (Ok(found), _) => found,
        (Err(error), Err(_)) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
        (Err(error), Ok(expected)) => {
            let wanted = match error.fault() {
                Fault::TooDeep { max } => expected.depth() > *max,
                Fault::LargeExponent { digits_max } => largest_exponent(expected) > *digits_max,
                Fault::ByteOrderMark => bytes.starts_with("\u{feff}".as_bytes()),
                _ => false,
            };
            assert!(wanted, "only ours rejects {}: {error}", shown());
            return false;
        }
    };
    let expected = expected.unwrap_or_else(|error| panic!("only ours accepts {}: {error}", shown()));
    assert!(Tree::of(&found).is_same(&expected), "{} is read as {found}", shown());
    // Every other conversion from text to a tree and back has the same result.
    let text = std::str::from_utf8(bytes).expect("JSON is UTF-8");
    let json = Json::trusted(text);
    let member = |value: serde_json::Value| value.as_object().and_then(|object| object.get("x").cloned());
    for (way, again) in [
        ("written again", parse(&found.to_string()).ok()),
        ("to_value", json.to_value().ok()),
        ("json!", member(json!({ "x": json }))),
        ("to_tree", to_tree(&json).ok()),
        ("a field", typed::<Field>(text).ok().map(|field| field.0)),
        ("a field of a tree", from_tree::<Field>(found.clone()).ok().map(|field| field.0)),
        (
            "text in text",
            serde_json::to_string(&[&json]).ok().and_then(|text| Some(parse(&text).ok()?.get(0)?.clone())),
        ),
    ] {
        // The wrapper around the value adds one level.
        let too_deep = expected.depth() >= DEPTH_MAX;
        assert!(again.as_ref() == Some(&found) || (again.is_none() && too_deep), "{way}: {} is {again:?}", shown());
    }
    true
}

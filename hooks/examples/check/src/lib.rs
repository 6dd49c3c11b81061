//! A pre hook: refuses an order of more than a million, and writes the currency in capitals.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

wit_bindgen::generate!({ path: "../../../wit/since_v0_1_0", world: "pre-hook" });

use snaphook::hook::types::FieldError;

const TOTAL_MAX: f64 = 1_000_000.0;

struct Check;

export!(Check);

impl Guest for Check {
    fn check(ctx: Context) -> Result<Verdict, Rejection> {
        let Some(after) = &ctx.after else { return Ok(Verdict::Accept) };
        let order: Order = serde_json::from_str(after).map_err(|error| refusal(&error.to_string(), ""))?;
        if order.total > TOTAL_MAX {
            return Err(refusal("at most a million", "/total"));
        }
        match order.currency {
            Some(currency) if currency.contains(|char: char| char.is_ascii_lowercase()) => {
                let amended = with_currency(after, &currency.to_ascii_uppercase());
                amended.map(Verdict::Amend).map_err(|error| refusal(&error.to_string(), ""))
            }
            _ => Ok(Verdict::Accept),
        }
    }
}

#[derive(serde::Deserialize)]
struct Order {
    total: f64,
    currency: Option<String>,
}

/// Only the currency is written anew: the other values stay the text that they are, so numbers keep their digits.
fn with_currency(after: &str, currency: &str) -> serde_json::Result<String> {
    let mut data: BTreeMap<String, Box<RawValue>> = serde_json::from_str(after)?;
    data.insert("currency".into(), serde_json::value::to_raw_value(currency)?);
    serde_json::to_string(&data)
}

fn refusal(message: &str, pointer: &str) -> Rejection {
    let fields = vec![FieldError { pointer: pointer.into(), message: message.into() }];
    Rejection { message: message.into(), fields }
}

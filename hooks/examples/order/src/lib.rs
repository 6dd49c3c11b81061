//! A hook with `snaphook-hook`, before and after: an order needs a customer that is known and gets that customer's currency;
//! each order is noted. Built as a component or as a native library from this one source.

use serde::Deserialize;
use serde_json::json;
use snaphook_hook::{Change, Hook, Reject, Result, Verdict, log, read, write};

struct Orders;

snaphook_hook::export!(Orders);

/// As much of an order as this hook looks at.
#[derive(Deserialize)]
struct Order {
    customer: String,
    currency: Option<String>,
}

#[derive(Deserialize)]
struct Customer {
    currency: String,
}

impl Hook for Orders {
    type Data = Order;

    fn check(change: &Change<Order>) -> Result<Verdict> {
        let Some(order) = &change.after else { return Ok(Verdict::Accept) };
        let Some(customer) = read::get::<Customer>("customer", &order.customer)? else {
            return Err(Reject::new("unknown customer").field("/customer", "no such customer").into());
        };
        if order.currency.is_some() {
            return Ok(Verdict::Accept);
        }
        // The other members stay the text that they are.
        change.amend()?.set("currency", &customer.data.currency)?.verdict()
    }

    fn react(change: &Change<Order>) -> Result<()> {
        let event = change.event.as_ref().ok_or("a post hook without an event")?;
        // One note per event, named for it: a second run of the same event finds it there.
        let note = json!({"what": format!("{}/{} in phase {}", change.model, change.id, change.phase)});
        match write::create("note", Some(&format!("at-{}", event.position)), &note) {
            Err(error) if error.code == "exists" => log::info(format!("noted before, attempt {}", change.attempt)),
            noted => drop(noted?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use snaphook_hook::{Error, Phase, mock::Mock};

    use super::*;

    fn mock() -> Mock {
        Mock::new().grant("read", "customer").instance("customer", "ada", json!({"currency": "GBP"}))
    }

    #[test]
    fn the_currency_is_the_customers_and_numbers_keep_their_digits() {
        let order = r#"{"customer":"ada","total":0.10000000000000000001}"#;
        let verdict = mock().check_text::<Orders>(Phase::PreCreate, None, Some(order));
        let amended = r#"{"customer":"ada","total":0.10000000000000000001,"currency":"GBP"}"#;
        assert_eq!(verdict, Ok(Verdict::Amend(amended.to_owned())));
        let whole = json!({"customer": "ada", "currency": "EUR"});
        assert_eq!(mock().check::<Orders>(Phase::PreUpdate, None, Some(whole)), Ok(Verdict::Accept));
    }

    #[test]
    fn unknown_customers_are_refused() {
        let order = json!({"customer": "bob"});
        let refused = mock().check::<Orders>(Phase::PreCreate, None, Some(order));
        assert_eq!(refused, Err(Reject::new("unknown customer").field("/customer", "no such customer").into()));
    }

    #[test]
    fn without_the_grant_nothing_is_decided() {
        let order = json!({"customer": "ada"});
        let failed = Mock::new().check::<Orders>(Phase::PreCreate, None, Some(order));
        assert!(matches!(&failed, Err(Error::Fail(message)) if message.ends_with("(denied)")), "{failed:?}");
        let order = json!({"total": 1});
        let failed = mock().check::<Orders>(Phase::PreCreate, None, Some(order));
        assert!(
            matches!(&failed, Err(Error::Fail(message)) if message.contains("missing field `customer`")),
            "{failed:?}"
        );
    }

    #[test]
    fn each_order_is_noted_once() {
        let mock = mock().grant("write", "note");
        for _ in 0..2 {
            mock.react::<Orders>(Phase::PostCreate, None, Some(json!({"customer": "ada"}))).unwrap();
        }
        assert_eq!(mock.writes().len(), 1);
        assert_eq!(mock.writes()[0].id, "at-1");
        assert_eq!(mock.logged(), ["info noted before, attempt 1"]);
    }
}

//! The hook {{name}}.

use serde::Deserialize;
use snaphook_hook::{Change, Hook, Reject, Result, Verdict, log};

struct Check;

snaphook_hook::export!(Check);

/// The part of the model's data that this hook uses.
#[derive(Deserialize)]
struct Data {
    total: f64,
}

impl Hook for Check {
    type Data = Data;

    /// Runs before the change. Changing the data needs the grant `amend`.
    fn check(change: &Change<Data>) -> Result<Verdict> {
        let Some(data) = change.after.as_ref().or(change.before.as_ref()) else { return Ok(Verdict::Accept) };
        log::info(format!("{{name}} looks at a total of {}", data.total));
        if data.total < 0.0 {
            return Err(Reject::new("a total below zero").field("/total", "at least 0").into());
        }
        Ok(Verdict::Accept)
    }

    /// Runs after the change, at least once.
    fn react(change: &Change<Data>) -> Result<()> {
        log::info(format!("{{name}} reacts to {}", change.id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use snaphook_hook::{Phase, mock::Mock};

    use super::*;

    #[test]
    fn a_total_is_at_least_zero() {
        let check = |total: f64| Mock::new().check::<Check>(Phase::PreCreate, None, Some(json!({ "total": total })));
        assert_eq!(check(1.0), Ok(Verdict::Accept));
        assert!(check(-1.0).is_err());
    }
}

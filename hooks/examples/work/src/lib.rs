//! A hook that computes: what `cargo xtask bench` compares the engines with. Data with `rows` is made into another shape and
//! into text; for any other, 10,000 numbers are sorted. Built as a component and as a native library.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use snaphook_hook::{Change, Hook, Reject, Result, Verdict};

struct Work;

snaphook_hook::export!(Work);

#[derive(Deserialize)]
struct Data {
    rows: Option<Vec<Row>>,
}

#[derive(Deserialize)]
struct Row {
    customer: String,
    amount: f64,
    tags: Vec<String>,
}

#[derive(Serialize)]
struct Line {
    customer: String,
    cents: i64,
    tags: String,
}

#[derive(Serialize)]
struct Report {
    rows: Vec<Line>,
    totals: BTreeMap<String, f64>,
}

impl Hook for Work {
    type Data = Data;

    fn check(change: &Change<Data>) -> Result<Verdict> {
        match change.after.as_ref().and_then(|data| data.rows.as_deref()) {
            Some(rows) => transform(rows),
            None => sort(),
        }
    }

    fn react(_: &Change<Data>) -> Result<()> {
        Ok(())
    }
}

fn transform(rows: &[Row]) -> Result<Verdict> {
    let mut totals = BTreeMap::new();
    for row in rows {
        *totals.entry(row.customer.clone()).or_insert(0.0) += row.amount;
    }
    let line = |row: &Row| Line {
        customer: row.customer.to_uppercase(),
        cents: (row.amount * 100.0).round() as i64,
        tags: row.tags.join(" "),
    };
    let report = Report { rows: rows.iter().map(line).collect(), totals };
    let text = serde_json::to_string(&report).map_err(|error| error.to_string())?;
    if text.len() < 1_000 {
        return Err(Reject::new("too little").into());
    }
    Ok(Verdict::Accept)
}

fn sort() -> Result<Verdict> {
    let mut next = 1_u64;
    let mut numbers: Vec<u64> = (0..10_000)
        .map(|_| {
            next = next * 48_271 % 2_147_483_647;
            next
        })
        .collect();
    numbers.sort_unstable();
    if numbers.first() > numbers.last() {
        return Err(Reject::new("not sorted").into());
    }
    Ok(Verdict::Accept)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use snaphook_hook::{Phase, mock::Mock};

    use super::*;

    #[test]
    fn both_kinds_of_work_are_done() {
        let row = json!({"customer": "ada", "amount": 1.5, "tags": ["a", "b"]});
        let many = json!({"rows": vec![row.clone(); 100]});
        assert_eq!(Mock::new().check::<Work>(Phase::PreCreate, None, Some(many)), Ok(Verdict::Accept));
        let few = Mock::new().check::<Work>(Phase::PreCreate, None, Some(json!({"rows": [row]})));
        assert_eq!(few, Err(Reject::new("too little").into()));
        assert_eq!(Mock::new().check::<Work>(Phase::PreCreate, None, Some(json!({}))), Ok(Verdict::Accept));
    }
}

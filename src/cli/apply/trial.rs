//! `snaphook apply --plan`: the server is asked of each step whether it could be done.
//!
//! A step may need what an earlier one would make. Models that are still to be made stand in for nothing: a reference to one is
//! tried as a reference to the model itself, and hooks of one are checked as hooks of no model.

use serde_json::{Map, Value};

use crate::catalog::plan::Step;
use crate::cli::bindings::chain_body;
use crate::cli::client::{Client, ClientBody, path, with_query};
use crate::cli::failure::{Failure, Result};
use crate::cli::output;

/// Prints every step, and why the server could not take it.
pub(super) async fn run(client: &Client, steps: &[Step], artifacts: &[&str]) -> Result<()> {
    let new: Vec<&str> = steps
        .iter()
        .filter_map(|step| match step {
            Step::CreateModel { id, .. } => Some(id.as_str()),
            _ => None,
        })
        .collect();
    let mut failing = 0;
    for step in steps {
        output::line(step)?;
        match ask(client, step, &new, artifacts).await {
            Ok(()) => {}
            // Nobody would answer the other questions either.
            Err(error @ (Failure::NoServer(_) | Failure::Broken(_))) => return Err(error),
            Err(error) => {
                failing += 1;
                output::line(format!("  would fail: {}", error.to_string().replace('\n', "\n  ")))?;
            }
        }
    }
    match failing {
        0 => Ok(()),
        _ => Err(Failure::NotReady(format!("{failing} of {} steps would fail; nothing was changed", steps.len()))),
    }
}

async fn ask(client: &Client, step: &Step, new: &[&str], artifacts: &[&str]) -> Result<()> {
    let dry = || vec![("dry-run", "true".to_owned())];
    match step {
        Step::CreateModel { id, document } => {
            let mut body = Map::from_iter([("id".to_owned(), Value::from(id.as_str()))]);
            body.extend(stand_in(id, document, new).as_object().cloned().unwrap_or_default());
            let body = ClientBody::json(&Value::Object(body));
            client.post(&with_query("/models", &dry()), Some(body)).await.map(drop)
        }
        Step::ChangeModel { id, document, .. } => {
            let body = ClientBody::json(&stand_in(id, document, new));
            client.put(&with_query(&path(&["models", id]), &dry()), body).await.map(drop)
        }
        Step::PutHooks { model, phase, chain, .. } => {
            let (mut query, body) = chain_body(model, chain, artifacts);
            if new.contains(&model.as_str()) {
                let check = path(&["hooks", "check", phase.as_str()]);
                return client.post(&with_query(&check, &query), Some(body)).await.map(drop);
            }
            query.extend(dry());
            client.put(&with_query(&path(&["models", model, "hooks", phase.as_str()]), &query), body).await.map(drop)
        }
        Step::RemoveHooks { model, phase, .. } => {
            client.delete(&with_query(&path(&["models", model, "hooks", phase.as_str()]), &dry())).await
        }
    }
}

/// A definition whose references to models that are not there yet are to the model itself, which always is.
fn stand_in(id: &str, document: &Value, new: &[&str]) -> Value {
    let mut document = document.clone();
    let properties = document.get_mut("schema").and_then(|schema| schema.get_mut("properties"));
    for property in properties.and_then(Value::as_object_mut).into_iter().flat_map(|properties| properties.values_mut())
    {
        if let Some(target) = property.get_mut("x-references").and_then(|reference| reference.get_mut("model"))
            && target.as_str().is_some_and(|target| new.contains(&target))
        {
            *target = Value::from(id);
        }
    }
    document
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_to_what_is_not_there_yet() {
        let document = |customer: &str| {
            json!({"schema": {"properties": {"n": {}, "c": {"x-references": {"model": customer, "on-delete": "cascade"}},
                "s": {"x-references": {"model": "shop"}}}}})
        };
        assert_eq!(stand_in("order", &document("customer"), &["customer", "order"]), document("order"));
        assert_eq!(stand_in("order", &document("customer"), &[]), document("customer"));
    }
}

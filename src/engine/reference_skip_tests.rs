//! References of events that are skipped.

use serde_json::json;
use snaphook_driver::EventKind;

use super::command::Origin;
use super::error::{ErrorKind, Result};
use super::reference_tests::{check_log, create, data, delete, kind, order, replace};
use super::testing::{Bench, bench, cluster, eventually, input};

async fn stuck_at(node: &Bench) -> u64 {
    eventually("a model is stuck", || async {
        node.engine.operations.readiness().await.models.first().map(|stuck| stuck.position)
    })
    .await
}

async fn skip(node: &Bench, position: u64) -> Result<u64> {
    node.engine.operations.skip_event(position, "test", &Origin::default()).await
}

/// One node cannot apply the event by which an instance lets go of what it referred to; on the other that is deleted then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_skipped_does_not_bring_back_a_reference_to_what_is_gone() {
    let nodes = cluster(2).await;
    let [stuck, other] = &nodes[..] else { panic!("two nodes") };
    other.model("customer", input(json!({}), &[])).await.unwrap();
    other.model("order", order("restrict")).await.unwrap();
    create(other, "customer", "a", json!({})).await.unwrap();
    create(other, "customer", "b", json!({})).await.unwrap();
    create(other, "order", "o", json!({"customer": "a"})).await.unwrap();
    *stuck.store.refused.lock().unwrap() = Some("poison");
    replace(other, "order", "o", json!({"customer": "b", "n": "poison"})).await.unwrap();
    let position = stuck_at(stuck).await;
    delete(other, "customer", "a").await.unwrap();
    let error = kind(skip(stuck, position).await, ErrorKind::Conflict);
    assert!(
        error.detail.contains("would refer to `customer/a` through `customer`, which was deleted since"),
        "{error}"
    );
    // Nothing was half done.
    assert_eq!(stuck_at(stuck).await, position);
    assert_eq!(data(other, "order", "o").await.as_deref(), Some(r#"{"customer":"b","n":"poison"}"#));
    create(other, "customer", "a", json!({})).await.unwrap();
    skip(stuck, position).await.unwrap();
    for node in [stuck, other] {
        eventually("it is as before", || async {
            (data(node, "order", "o").await.as_deref() == Some(r#"{"customer":"a"}"#)).then_some(())
        })
        .await;
    }
    // The reference is held, and the other one is not any more.
    kind(delete(other, "customer", "a").await, ErrorKind::Referenced);
    delete(other, "customer", "b").await.unwrap();
    check_log(other, &[("order", "customer", "customer")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_because_its_deletion_is_skipped_can_be_referred_to() {
    let bench = bench().await;
    bench.model("customer", input(json!({}), &[])).await.unwrap();
    bench.model("order", order("restrict")).await.unwrap();
    create(&bench, "customer", "a", json!({})).await.unwrap();
    *bench.store.refused_kind.lock().unwrap() = Some(EventKind::InstanceDeleted);
    delete(&bench, "customer", "a").await.unwrap();
    let position = stuck_at(&bench).await;
    *bench.store.refused_kind.lock().unwrap() = None;
    skip(&bench, position).await.unwrap();
    eventually("it is there again", || async { data(&bench, "customer", "a").await }).await;
    create(&bench, "order", "o", json!({"customer": "a"})).await.unwrap();
    kind(delete(&bench, "customer", "a").await, ErrorKind::Referenced);
}

//! Calls of a model store.

use super::request::{foreign, nothing, read, refuse, write};
use crate::budget::Budget;
use crate::carry_over::CarryOver;
use crate::driver::Store;
use crate::error::{DriverError, Result};
use crate::event::Event;
use crate::model_store::{ModelShape, ModelStore};
use crate::wire::events::each;
use crate::wire::filters;
use crate::wire::instances::query;
use crate::wire::message::{Malformed, required};
use crate::wire::method::Method;
use crate::wire::proto;

pub(super) async fn call(store: &dyn ModelStore, method: Method, request: &[u8]) -> Result<Vec<u8>> {
    match method {
        Method::ModelHealth => store.health().await.map(nothing),
        Method::ModelClose => store.close().await.map(nothing),
        Method::ModelApply => {
            let request: proto::ModelApplyRequest = read(method, request)?;
            let events: Vec<Event> = each(request.events).map_err(refuse(method))?;
            store.apply(request.after, &events, request.to).await.map(nothing)
        }
        Method::ModelLog => write(&proto::ModelLogResponse { log: store.log().await? }),
        Method::ModelCheckpoint => write(&proto::ModelCheckpointResponse { position: store.checkpoint().await? }),
        Method::ModelGet | Method::ModelQuery | Method::ModelCount => instances(store, method, request).await,
        Method::ModelReset => {
            let request: proto::ModelResetRequest = read(method, request)?;
            store.reset(&request.log).await.map(nothing)
        }
        _ => definitions(store, method, request).await,
    }
}

async fn instances(store: &dyn ModelStore, method: Method, request: &[u8]) -> Result<Vec<u8>> {
    let refuse = refuse(method);
    match method {
        Method::ModelGet => {
            let request: proto::ModelGetRequest = read(method, request)?;
            let instance = store.get(&request.model, &request.id).await?;
            write(&proto::ModelGetResponse { instance: instance.as_ref().map(Into::into) })
        }
        Method::ModelQuery => {
            let (model, query, budget) = query(read(method, request)?).map_err(refuse)?;
            let _cancel = budget.cancel_on_drop();
            let page = store.query(&model, &query, &budget).await?;
            let items = page.items.iter().map(Into::into).collect();
            write(&proto::ModelQueryResponse { items, next: page.next, steps: budget.steps() })
        }
        _ => {
            let request: proto::ModelCountRequest = read(method, request)?;
            let filter = filters::from_wire(request.filter).map_err(&refuse)?;
            let budget: Budget = required("budget", request.budget).map_err(&refuse)?.into();
            let _cancel = budget.cancel_on_drop();
            let count = store.count(&request.model, &filter, &budget).await?;
            write(&proto::ModelCountResponse { count, steps: budget.steps() })
        }
    }
}

async fn definitions(store: &dyn ModelStore, method: Method, request: &[u8]) -> Result<Vec<u8>> {
    let refuse = refuse(method);
    match method {
        Method::ModelDefine => {
            let request: proto::ModelDefineRequest = read(method, request)?;
            let old = request.old.map(ModelShape::try_from).transpose().map_err(&refuse)?;
            let (new, carry) = change(request.new, request.carry).map_err(&refuse)?;
            store.define(request.after, old.as_ref(), &new, &carry, request.position).await.map(nothing)
        }
        Method::ModelPrepare => {
            let request: proto::ModelPrepareRequest = read(method, request)?;
            let (new, carry) = change(request.new, request.carry).map_err(refuse)?;
            write(&proto::ModelPrepareResponse { ticket: store.prepare(&new, &carry).await? })
        }
        Method::ModelDiscard => {
            let request: proto::ModelDiscardRequest = read(method, request)?;
            store.discard(&request.model, request.ticket).await.map(nothing)
        }
        Method::ModelBeginReplay => store.begin_replay().await.map(nothing),
        Method::ModelEndReplay => {
            let faults = store.end_replay().await?;
            let fault = |(model, error): &(String, DriverError)| proto::ModelFault {
                model: model.clone(),
                error: Some(error.into()),
            };
            write(&proto::ModelEndReplayResponse { faults: faults.iter().map(fault).collect() })
        }
        Method::ModelDropModel => {
            let request: proto::ModelDropModelRequest = read(method, request)?;
            store.drop_model(request.after, &request.model, request.position).await.map(nothing)
        }
        Method::ModelDefinitions => {
            let models = store.definitions().await?;
            write(&proto::ModelDefinitionsResponse { models: models.iter().map(Into::into).collect() })
        }
        _ => Err(foreign(method, Store::Model)),
    }
}

fn change(
    new: Option<proto::ModelShape>,
    carry: Option<proto::CarryOver>,
) -> Result<(ModelShape, CarryOver), Malformed> {
    Ok((required("new", new)?.try_into()?, carry.unwrap_or_default().try_into()?))
}

//! Client of a remote model store.

use async_trait::async_trait;

use super::{Client, garbage};
use crate::budget::Budget;
use crate::capabilities::Capabilities;
use crate::carry_over::CarryOver;
use crate::error::{DriverError, Result};
use crate::event::{Event, Position};
use crate::filter::Filter;
use crate::model_store::{Instance, InstancePage, InstanceQuery, ModelShape, ModelStore};
use crate::wire::events::each;
use crate::wire::filters;
use crate::wire::instances::query_request;
use crate::wire::message::{Malformed, required};
use crate::wire::method::Method;
use crate::wire::proto;

#[async_trait]
impl ModelStore for Client {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn health(&self) -> Result<()> {
        self.tell(Method::ModelHealth, &proto::Empty {}).await
    }

    async fn close(&self) -> Result<()> {
        self.tell(Method::ModelClose, &proto::Empty {}).await
    }

    async fn define(
        &self,
        after: Position,
        old: Option<&ModelShape>,
        new: &ModelShape,
        carry: &CarryOver,
        position: Position,
    ) -> Result<()> {
        let (old, new, carry) = (old.map(Into::into), Some(new.into()), Some(carry.into()));
        self.tell(Method::ModelDefine, &proto::ModelDefineRequest { after, old, new, carry, position }).await
    }

    async fn prepare(&self, new: &ModelShape, carry: &CarryOver) -> Result<u64> {
        let request = proto::ModelPrepareRequest { new: Some(new.into()), carry: Some(carry.into()) };
        let response: proto::ModelPrepareResponse = self.call(Method::ModelPrepare, &request).await?;
        Ok(response.ticket)
    }

    async fn discard(&self, model: &str, ticket: u64) -> Result<()> {
        let request = proto::ModelDiscardRequest { model: model.to_owned(), ticket };
        self.tell(Method::ModelDiscard, &request).await
    }

    async fn begin_replay(&self) -> Result<()> {
        self.tell(Method::ModelBeginReplay, &proto::Empty {}).await
    }

    async fn end_replay(&self) -> Result<Vec<(String, DriverError)>> {
        let response: proto::ModelEndReplayResponse = self.call(Method::ModelEndReplay, &proto::Empty {}).await?;
        let fault = |fault: proto::ModelFault| Ok((fault.model, required("error", fault.error)?.into()));
        let faults: Result<Vec<_>, Malformed> = response.faults.into_iter().map(fault).collect();
        faults.map_err(garbage(Method::ModelEndReplay))
    }

    async fn drop_model(&self, after: Position, model: &str, position: Position) -> Result<()> {
        let request = proto::ModelDropModelRequest { after, model: model.to_owned(), position };
        self.tell(Method::ModelDropModel, &request).await
    }

    async fn apply(&self, after: Position, events: &[Event], to: Position) -> Result<()> {
        let request = proto::ModelApplyRequest { after, events: events.iter().map(Into::into).collect(), to };
        self.tell(Method::ModelApply, &request).await
    }

    async fn log(&self) -> Result<Option<String>> {
        let response: proto::ModelLogResponse = self.call(Method::ModelLog, &proto::Empty {}).await?;
        Ok(response.log)
    }

    async fn checkpoint(&self) -> Result<Position> {
        let response: proto::ModelCheckpointResponse = self.call(Method::ModelCheckpoint, &proto::Empty {}).await?;
        Ok(response.position)
    }

    async fn definitions(&self) -> Result<Vec<ModelShape>> {
        let response: proto::ModelDefinitionsResponse = self.call(Method::ModelDefinitions, &proto::Empty {}).await?;
        each(response.models).map_err(garbage(Method::ModelDefinitions))
    }

    async fn get(&self, model: &str, id: &str) -> Result<Option<Instance>> {
        let request = proto::ModelGetRequest { model: model.to_owned(), id: id.to_owned() };
        let response: proto::ModelGetResponse = self.call(Method::ModelGet, &request).await?;
        response.instance.map(TryInto::try_into).transpose().map_err(garbage(Method::ModelGet))
    }

    async fn query(&self, model: &str, query: &InstanceQuery, budget: &Budget) -> Result<InstancePage> {
        budget.check().map_err(|exceeded| exceeded.into_error("query"))?;
        let request = query_request(model, query, budget);
        let response: proto::ModelQueryResponse = self.call(Method::ModelQuery, &request).await?;
        // If the budget is exceeded, the other side returns the error.
        let _ = budget.charge(response.steps);
        response.try_into().map_err(garbage(Method::ModelQuery))
    }

    async fn count(&self, model: &str, filter: &Filter, budget: &Budget) -> Result<u64> {
        budget.check().map_err(|exceeded| exceeded.into_error("count"))?;
        let (model, filter) = (model.to_owned(), filters::to_wire(filter));
        let request = proto::ModelCountRequest { model, filter, budget: Some(budget.into()) };
        let response: proto::ModelCountResponse = self.call(Method::ModelCount, &request).await?;
        let _ = budget.charge(response.steps);
        Ok(response.count)
    }

    async fn reset(&self, log: &str) -> Result<()> {
        self.tell(Method::ModelReset, &proto::ModelResetRequest { log: log.to_owned() }).await
    }
}

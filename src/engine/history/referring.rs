//! The instances of a model that refer to one instance.

use snaphook_driver::{Budget, Filter, InstancePage};

use super::History;
use crate::catalog::Reference;
use crate::catalog::query::{self, QueryInput};
use crate::engine::error::{Error, Result};
use crate::engine::reads::{self, LIMITS};
use crate::engine::referring::refers_to;

impl History {
    /// The reference of the model `other` to `model`; `via` names it where there are several.
    pub fn reference_between(&self, other: &str, model: &str, via: Option<&str>) -> Result<Reference> {
        let entry = self.core.models.require(other)?;
        let all: Vec<&Reference> = entry.model.references_to(model).collect();
        let names = || all.iter().map(|found| format!("`{}`", found.property)).collect::<Vec<_>>().join(", ");
        let found = match (via, &all[..]) {
            (_, []) => Err(format!("instances of `{other}` do not refer to `{model}`")),
            (None, [one]) => Ok(*one),
            (None, _) => Err(format!("`{other}` refers to `{model}` through {}; choose one with `via`", names())),
            (Some(via), _) => all.iter().find(|found| found.property == via).copied().ok_or_else(|| {
                let shown: String = via.chars().take(80).collect();
                format!(
                    "via: `{}` is no reference of `{other}` to `{model}`; those are {}",
                    shown.escape_debug(),
                    names()
                )
            }),
        };
        found.cloned().map_err(Error::bad_request)
    }

    /// A page of the instances of `other` that refer to one, and with `count` how many there are.
    pub async fn referring(
        &self,
        model: &str,
        id: &str,
        other: &str,
        reference: &Reference,
        input: &QueryInput,
        count: bool,
    ) -> Result<(InstancePage, Option<u64>)> {
        if reads::find(&self.core, model, id).await?.is_none() {
            return Err(Error::not_found(format!("there is no `{model}/{id}`")));
        }
        self.core.availability.check_model(other)?;
        let entry = self.core.models.require(other)?;
        let mut query = query::check(&entry.model, input).map_err(Error::bad_request)?;
        query.filter = Filter::And(vec![refers_to(reference, id), query.filter]);
        let budget = Budget::new(LIMITS);
        let page = self.core.stores.model.query(other, &query, &budget).await?;
        let count = match count {
            true => Some(self.core.stores.model.count(other, &query.filter, &budget).await?),
            false => None,
        };
        Ok((page, count))
    }
}

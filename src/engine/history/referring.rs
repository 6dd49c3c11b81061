//! The instances of a model that refer to one instance.

use snaphook_driver::{Budget, InstancePage};

use super::History;
use crate::catalog::Reference;
use crate::catalog::query::QueryInput;
use crate::catalog::rules::Right;
use crate::engine::core::Core;
use crate::engine::error::{Error, Result};
use crate::engine::reads::{self, LIMITS};
use crate::engine::referring::refers_to;

impl History {
    /// The reference of the model `other` to `model`; `via` names it if there are several.
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
                    "via: `{}` is not a reference of `{other}` to `{model}`; those are {}",
                    shown.escape_debug(),
                    names()
                )
            }),
        };
        found.cloned().map_err(Error::bad_request)
    }
}

/// A page of the instances of `other` that refer to one and that the caller may read; with `count`, also their number.
pub(super) async fn referring(
    core: &Core,
    id: &str,
    other: &str,
    reference: &Reference,
    input: &QueryInput,
    count: bool,
    right: &Right,
) -> Result<(InstancePage, Option<u64>)> {
    let budget = Budget::new(LIMITS);
    let refers = refers_to(reference, id);
    let page = reads::page(core, other, input, Some(refers.clone()), &budget, right).await?;
    let count = match count {
        true => Some(reads::count(core, other, input, Some(refers), &budget, right).await?),
        false => None,
    };
    Ok((page, count))
}

//! Handles the instances that refer to a deleted one: they are deleted with it, lose the reference, or prevent the
//! deletion. All changes that follow from a deletion are written with it, atomically.

use std::collections::VecDeque;
use std::sync::Arc;

use snaphook_driver::{Budget, Cause, InstanceQuery, Json};

use super::Writes;
use super::drafts::{Deleted, Drafts, PLACE};
use super::prepare::Draft;
use super::steps::{One, WriteCommand};
use crate::catalog::rules::Right;
use crate::catalog::{FieldError, OnDelete, Reference};
use crate::engine::ahead::Ahead;
use crate::engine::command::{InstanceChange, Origin, Precondition};
use crate::engine::error::{Error, ErrorKind, Result};
use crate::engine::models::LiveModel;
use crate::engine::reads::{LIMITS, may_read};
use crate::engine::referring::{refers_to, target};
use crate::memory::{Lease, Share, tree_bytes};

/// Instances that are deleted or changed because of one request's deletions.
const FOLLOWING_MAX: usize = 1000;

/// Deletions that follow from each other.
const DEPTH_MAX: usize = 32;

/// Instances per page.
const PAGE: u32 = 200;

/// Rows of an error.
const LISTED_MAX: usize = 20;

/// The context for drafting the changes that follow from one operation.
pub(super) struct Following<'a> {
    pub(super) origin: &'a Origin,
    pub(super) is_trial: bool,
    pub(super) trees: &'a Lease<&'a Share>,
    pub(super) ahead: &'a Arc<Ahead>,
}

impl Writes {
    /// Drafts all changes that follow from a deletion; `false`: in a dry run, it would be stopped.
    pub(super) async fn follow(&self, drafts: &mut Drafts, first: Deleted, following: &Following<'_>) -> Result<bool> {
        let mut open = VecDeque::from([first]);
        while let Some(deleted) = open.pop_front() {
            for (entry, reference) in self.references_to(&deleted.model) {
                if reference.on_delete == OnDelete::Restrict {
                    continue;
                }
                let left = FOLLOWING_MAX.saturating_sub(drafts.following);
                let ids = self.referrers(&entry, &reference, &deleted.id, following.ahead, left + 1).await?;
                if ids.len() > left {
                    let detail = format!(
                        "more than {FOLLOWING_MAX} instances would be deleted or changed with {}; delete some of them first",
                        deleted.label()
                    );
                    return Err(Error::new(ErrorKind::Referenced, detail).telling_of([&deleted.model]));
                }
                if !ids.is_empty() && deleted.depth == DEPTH_MAX {
                    let detail = format!(
                        "deletions would follow from each other more than {DEPTH_MAX} deep, up to {}; delete some first",
                        deleted.label()
                    );
                    return Err(Error::new(ErrorKind::Referenced, detail).telling_of([&deleted.model]));
                }
                for id in ids {
                    match self.follow_one(drafts, &deleted, &entry, &reference, id, following).await? {
                        Some(next) => open.extend(next),
                        None => return Ok(false),
                    }
                }
            }
        }
        Ok(true)
    }

    /// Drafts the change of one instance; `None`: it would be stopped. Otherwise the deletion, if it is one.
    async fn follow_one(
        &self,
        drafts: &mut Drafts,
        deleted: &Deleted,
        entry: &Arc<LiveModel>,
        reference: &Reference,
        id: String,
        following: &Following<'_>,
    ) -> Result<Option<Option<Deleted>>> {
        let model = &entry.model.record.id;
        let is_deletion = reference.on_delete == OnDelete::Cascade;
        let change = match is_deletion {
            true => InstanceChange::Delete { id: id.clone() },
            false => InstanceChange::Patch { id: id.clone(), patch: Json::trusted("{}") },
        };
        let command = WriteCommand { id: id.clone(), fresh: false, change };
        let one = One { model: model.clone(), command, precondition: Precondition::None };
        let (entry, Some(current)) = self.current(&one, following.ahead).await? else { return Ok(Some(None)) };
        following.trees.grow(tree_bytes(current.data.as_bytes()))?;
        let data = current.data.to_value().unwrap_or_default();
        // It has changed since it was found.
        if target(reference, &data) != Some(&deleted.id) {
            return Ok(Some(None));
        }
        let before = following.origin.cause.as_ref();
        let origin = Origin {
            cause: Some(Cause {
                position: deleted.position,
                hook: format!("{}{PLACE}{}", deleted.model, reference.on_delete.as_str()),
                depth: before.map_or(1, |cause| cause.depth + 1),
            }),
            right: Right::Server,
            ..following.origin.clone()
        };
        let draft = Draft {
            command: &one.command,
            precondition: &one.precondition,
            origin: &origin,
            prefix: "",
            collect: following.is_trial,
            trees: following.trees,
            ahead: Some(following.ahead),
            claim: None,
            loses: (!is_deletion).then_some(reference),
            told_to: &following.origin.right,
        };
        let position = current.position;
        let is_named = may_read(&self.core, &current, &following.origin.right)?;
        let current = (entry, Some(current));
        let passed = self.draft_alone(drafts, &one, draft, current, deleted.operation, following.is_trial).await;
        let passed = passed.map_err(|error| follows(error, deleted, &one, reference, is_named))?;
        if !passed {
            return Ok(None);
        }
        drafts.following += 1;
        let (operation, depth) = (deleted.operation, deleted.depth + 1);
        let next = Deleted { model: one.model, id, operation, position, depth, is_named };
        Ok(Some(is_deletion.then_some(next)))
    }

    /// Rejects deletions of instances that others still refer to. The index is that of the operation.
    pub(super) async fn check_referrers(&self, drafts: &Drafts, ahead: &Ahead) -> Result<(), (usize, Error)> {
        for deleted in &drafts.deleted {
            // A later operation may have created it again.
            if !matches!(ahead.of(&deleted.model, &deleted.id), Some(None)) {
                continue;
            }
            let at = |error| (deleted.operation, error);
            let mut rows = Vec::new();
            for (entry, reference) in self.references_to(&deleted.model) {
                let model = &entry.model.record.id;
                let found = match reference.on_delete {
                    OnDelete::Restrict => self.referrers(&entry, &reference, &deleted.id, ahead, 1).await,
                    // Stored references were handled, and newer ones conflict with the append. But a pre hook may have
                    // restored the reference.
                    OnDelete::Cascade | OnDelete::SetNull => {
                        ahead.ids_where(model, |data| target(&reference, data) == Some(&deleted.id))
                    }
                };
                let found = found.map_err(at)?;
                if !found.is_empty() && rows.len() < LISTED_MAX {
                    rows.push((model.clone(), reference.property));
                }
            }
            if !rows.is_empty() {
                return Err(at(referenced(deleted, &rows)));
            }
        }
        Ok(())
    }

    /// The current references to a model.
    fn references_to(&self, model: &str) -> Vec<(Arc<LiveModel>, Reference)> {
        let Some(entry) = self.core.models.get(model) else { return Vec::new() };
        let names = entry.model.record.referenced.iter().flat_map(|referenced| &referenced.by);
        let entries = names.filter_map(|name| self.core.models.get(name));
        let all = |entry: Arc<LiveModel>| {
            let references: Vec<Reference> = entry.model.references_to(model).cloned().collect();
            references.into_iter().map(move |reference| (Arc::clone(&entry), reference))
        };
        entries.flat_map(all).collect()
    }

    /// The first `max` instances that refer to one, after the effects of this request.
    async fn referrers(
        &self,
        entry: &LiveModel,
        reference: &Reference,
        id: &str,
        ahead: &Ahead,
        max: usize,
    ) -> Result<Vec<String>> {
        let model = &entry.model.record.id;
        let outages = self.core.availability.begun();
        let mut found = ahead.ids_where(model, |data| target(reference, data) == Some(id))?;
        let mut query = InstanceQuery { filter: refers_to(reference, id), limit: PAGE, ..InstanceQuery::default() };
        while found.len() < max {
            self.core.availability.check_model(model)?;
            let page = self.core.stores.model.query(model, &query, &Budget::new(LIMITS)).await?;
            let ids = page.items.into_iter().map(|instance| instance.id);
            found.extend(ids.filter(|id| ahead.of(model, id).is_none()));
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => break,
            }
        }
        // If the store failed meanwhile, it may have missed events.
        if self.core.availability.begun() != outages {
            let detail =
                format!("the model store failed while it looked up the references to `{id}`; try again in a moment");
            return Err(Error::new(ErrorKind::Unavailable, detail));
        }
        found.truncate(max);
        Ok(found)
    }
}

fn referenced(deleted: &Deleted, rows: &[(String, String)]) -> Error {
    let Deleted { model, id, is_named, .. } = deleted;
    let (other, property) = &rows[0];
    let mut detail = format!(
        "{} cannot be deleted: instances of `{other}` refer to it through `{property}`; change or delete them first",
        deleted.label()
    );
    if *is_named {
        detail.push_str(&format!(", `GET /models/{model}/instances/{id}/referring/{other}?via={property}` lists them"));
    }
    let errors = rows.iter().map(|(model, property)| FieldError {
        pointer: String::new(),
        message: format!("instances of `{model}` refer to it through `{property}`"),
    });
    let models = rows.iter().map(|(model, _)| model).chain([model]);
    Error::new(ErrorKind::Referenced, detail).with_errors(errors.collect()).telling_of(models)
}

/// The error if a change that follows from a deletion fails. Pointers into its data are dropped, because it is not the
/// request's; `is_named`: the instance may be named.
fn follows(error: Error, deleted: &Deleted, one: &One, reference: &Reference, is_named: bool) -> Error {
    if !is_named {
        let detail = format!(
            "an instance of `{}`, which refers to {} through `{}`, is in the way; whoever may read it can see why",
            one.model,
            deleted.label(),
            reference.property
        );
        let models = [&one.model, &deleted.model];
        return Error { source: error.source, ..Error::new(error.kind, detail) }.telling_of(models);
    }
    let mut detail = format!(
        "`{}/{}`, which refers to {} through `{}`: {}",
        one.model,
        one.command.id,
        deleted.label(),
        reference.property,
        error.detail
    );
    for row in error.errors.iter().take(3) {
        detail.push_str(&format!("; {} {}", row.pointer, row.message));
    }
    let kind = if error.kind == ErrorKind::Invalid { ErrorKind::Referenced } else { error.kind };
    Error { kind, detail, errors: Vec::new(), ..error }.telling_of([&one.model, &deleted.model])
}

//! Pages: their parameters, and writing a page of instances or events.

use snaphook_driver::{EventPage, InstancePage};

use super::expand::Expansion;
use super::problem::{Problem, Result};
use super::projection::Projection;
use super::query::Query;
use super::reply::{Reply, Response};
use super::request::Call;
use super::{json, log_position};
use crate::engine::QueryInput;
use crate::memory::tree_bytes;

pub(super) const LIMIT_MAX: u64 = 1000;
pub(super) const LIMIT_DEFAULT: u32 = 50;

/// Smaller responses are counted when they are complete.
pub(super) const COUNTED_LATE_BYTES: usize = 16 * 1024;

/// `limit`, from 1 to 1000.
pub(super) fn limit(query: &mut Query<'_>) -> Result<u32> {
    let limit = query.number("limit", 1, LIMIT_MAX)?;
    Ok(limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(LIMIT_DEFAULT))
}

/// The parameters of a list of instances.
pub(super) struct ListInput {
    pub(super) query: QueryInput,
    pub(super) projection: Option<Projection>,
    pub(super) count: bool,
    pub(super) expand: Option<String>,
}

impl ListInput {
    pub(super) fn take(query: &mut Query<'_>) -> Result<Self> {
        Ok(ListInput {
            query: QueryInput {
                limit: Some(limit(query)?),
                cursor: query.text("cursor")?,
                sort: query.list("sort")?,
                filter: query.filters()?,
            },
            projection: query.list("fields")?.map(|fields| Projection::parse(&fields)).transpose()?,
            count: query.flag("count")?,
            expand: query.list("expand")?,
        })
    }
}

/// `{items, next, count?}`
pub(super) fn instances(
    call: &Call,
    page: &InstancePage,
    projection: Option<&Projection>,
    expansion: Option<&Expansion>,
    count: Option<u64>,
) -> Result<Response> {
    hold(call, page.items.iter().map(|instance| instance.data.len()))?;
    if projection.is_some() {
        // One tree at a time.
        call.hold(page.items.iter().map(|instance| tree_bytes(instance.data.as_bytes())).max().unwrap_or(0))?;
    }
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(b"{\"items\":[");
    for (index, instance) in page.items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match projection {
            None => json::write_instance(&mut out, instance),
            Some(projection) => {
                let data = projection.apply(&instance.data).ok_or_else(|| {
                    Problem::bad_request(format!("the data of `{}` has no properties to choose from", instance.id))
                })?;
                json::write_instance_with(&mut out, instance, &data);
            }
        }
        if let Some(expansion) = expansion {
            expansion.write(&mut out, index);
        }
    }
    out.extend_from_slice(b"],\"next\":");
    match &page.next {
        Some(next) => json::write_string(&mut out, next),
        None => out.extend_from_slice(b"null"),
    }
    if let Some(count) = count {
        out.extend_from_slice(b",\"count\":");
        json::write_u64(&mut out, count);
    }
    out.push(b'}');
    Ok(Reply::ok().json(out))
}

/// `{items, next, head}`. `next`: the `after` of the next page, if this page ends before the log does; then it may have
/// no items.
pub(super) fn events(call: &Call, page: &EventPage, log: &str) -> Result<Response> {
    hold(call, page.events.iter().map(|event| event.data.as_ref().map_or(0, |data| data.len())))?;
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(b"{\"items\":[");
    for (index, event) in page.events.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        json::write_event(&mut out, event);
    }
    out.extend_from_slice(b"],\"next\":");
    match page.next() {
        Some(next) => {
            out.push(b'"');
            log_position::write(&mut out, log, next);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"head\":");
    json::write_u64(&mut out, page.head);
    out.push(b'}');
    Ok(Reply::ok().json(out))
}

/// Reserves memory for a page with data of these sizes, and for its text.
pub(super) fn hold(call: &Call, sizes: impl Iterator<Item = usize>) -> Result<()> {
    let bytes = 2 * sizes.sum::<usize>();
    if bytes > COUNTED_LATE_BYTES { call.hold(bytes) } else { Ok(()) }
}

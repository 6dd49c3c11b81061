//! Combines filters and drops redundant parts, so that the store gets small filters.

use snaphook_driver::Filter;

/// A filter that matches nothing.
pub fn nothing() -> Filter {
    Filter::Or(Vec::new())
}

/// A filter that matches everything, or nothing.
pub(super) fn always(matches: bool) -> Filter {
    if matches { Filter::And(Vec::new()) } else { nothing() }
}

fn is_always(filter: &Filter) -> Option<bool> {
    match filter {
        Filter::And(parts) if parts.is_empty() => Some(true),
        Filter::Or(parts) if parts.is_empty() => Some(false),
        _ => None,
    }
}

/// A client's filter and a rule's. The client's filter is simplified, because stores limit the depth of both together.
pub fn both(asked: Filter, readable: Filter) -> Filter {
    all([smaller(asked), readable])
}

fn smaller(filter: Filter) -> Filter {
    match filter {
        Filter::And(parts) => all(parts.into_iter().map(smaller)),
        Filter::Or(parts) => any(parts.into_iter().map(smaller)),
        Filter::Not(part) => not(smaller(*part)),
        condition @ Filter::Condition(_) => condition,
    }
}

pub(super) fn all(parts: impl IntoIterator<Item = Filter>) -> Filter {
    let mut kept = Vec::new();
    for part in parts {
        match (is_always(&part), part) {
            (Some(true), _) => {}
            (Some(false), _) => return nothing(),
            (None, Filter::And(inner)) => kept.extend(inner),
            (None, part) => kept.push(part),
        }
    }
    if kept.len() == 1 { kept.swap_remove(0) } else { Filter::And(kept) }
}

pub(super) fn any(parts: impl IntoIterator<Item = Filter>) -> Filter {
    let mut kept = Vec::new();
    for part in parts {
        match (is_always(&part), part) {
            (Some(false), _) => {}
            (Some(true), _) => return always(true),
            (None, Filter::Or(inner)) => kept.extend(inner),
            (None, part) => kept.push(part),
        }
    }
    if kept.len() == 1 { kept.swap_remove(0) } else { Filter::Or(kept) }
}

pub(super) fn not(part: Filter) -> Filter {
    match (is_always(&part), part) {
        (Some(matches), _) => always(!matches),
        (None, Filter::Not(part)) => *part,
        (None, part) => Filter::Not(Box::new(part)),
    }
}

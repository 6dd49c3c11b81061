//! Reads the instances to which other instances refer: each once, with one query per model and level.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;
use snaphook_driver::{Budget, Condition, Instance, InstanceQuery, Meta, Operator, time};

use super::History;
use crate::catalog::is_instance_id;
use crate::catalog::rules::{Right, both};
use crate::engine::error::{Error, Result};
use crate::engine::reads::{self, LIMITS};
use crate::memory::tree_bytes;

/// Maximum number of expanded properties per request, and their depth.
const PATHS_MAX: usize = 16;
const DEPTH_MAX: usize = 2;

/// Instances per query.
const IDS_AT_ONCE: usize = 200;

/// A property to expand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expand {
    pub property: Arc<str>,
    /// The model that it refers to.
    pub model: String,
    /// The properties to expand in the target.
    pub below: Vec<Expand>,
}

/// The targets of instances.
#[derive(Debug, Default)]
pub struct Expanded {
    /// For each of the instances, in their order.
    targets: Vec<Targets>,
    /// By model and id.
    found: HashMap<String, HashMap<String, Expandee>>,
}

/// An instance that others refer to.
#[derive(Debug)]
pub struct Expandee {
    pub instance: Instance,
    /// The targets of all properties that are expanded at any reference to it.
    targets: Targets,
}

/// The ids that an instance refers to, by property.
type Targets = BTreeMap<Arc<str>, String>;

/// The target ids by model, with the properties to expand there.
type Wanted<'e> = BTreeMap<&'e str, (BTreeSet<String>, Vec<&'e Expand>)>;

impl Expanded {
    /// The target of a property of the instance with this index.
    pub fn target(&self, index: usize, property: &str) -> Option<&str> {
        self.targets.get(index)?.get(property).map(String::as_str)
    }

    /// The instance of a model with that id; `None` if it does not exist or the caller may not read it.
    pub fn get(&self, model: &str, id: &str) -> Option<&Expandee> {
        self.found.get(model)?.get(id)
    }
}

impl Expandee {
    pub fn target(&self, property: &str) -> Option<&str> {
        self.targets.get(property).map(String::as_str)
    }
}

impl History {
    /// Reads `customer,customer.country` for instances of a model. `may_read` says which models the caller may read:
    /// the rest of a path behind other models is not checked.
    pub fn expansion(&self, model: &str, text: &str, may_read: impl Fn(&str) -> bool) -> Result<Vec<Expand>> {
        let paths: Vec<&str> = text.split(',').collect();
        if paths.len() > PATHS_MAX {
            return Err(Error::bad_request(format!("`expand` has {} names, at most {PATHS_MAX}", paths.len())));
        }
        let mut expands = Vec::new();
        for path in paths {
            self.add(&mut expands, model, path, 1, &may_read)?;
        }
        Ok(expands)
    }

    fn add(
        &self,
        expands: &mut Vec<Expand>,
        model: &str,
        path: &str,
        depth: usize,
        may_read: &impl Fn(&str) -> bool,
    ) -> Result<()> {
        let entry = self.core.models.require(model)?;
        let shown: String = path.chars().take(80).collect();
        // Names may contain dots: the longest prefix that is a reference counts.
        let ends = std::iter::once(path.len()).chain(path.rmatch_indices('.').map(|(end, _)| end));
        let found = ends.filter_map(|end| Some((end, entry.model.reference(&path[..end])?))).next();
        let Some((end, reference)) = found else {
            let names: Vec<String> =
                entry.model.record.references.iter().map(|reference| format!("`{}`", reference.property)).collect();
            let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Error::bad_request(format!(
                "expand: `{}` is not a reference of `{model}`; its references: {known}",
                shown.escape_debug()
            )));
        };
        let index = expands.iter().position(|expand| *expand.property == *reference.property).unwrap_or_else(|| {
            let (property, model) = (reference.property.as_str().into(), reference.model.clone());
            expands.push(Expand { property, model, below: Vec::new() });
            expands.len() - 1
        });
        let Some(rest) = path[end..].strip_prefix('.') else { return Ok(()) };
        if depth == DEPTH_MAX {
            return Err(Error::bad_request(format!(
                "expand: `{}` goes deeper than {DEPTH_MAX} references",
                shown.escape_debug()
            )));
        }
        if !may_read(&reference.model) {
            return Ok(());
        }
        self.add(&mut expands[index].below, &reference.model, rest, depth + 1, may_read)
    }

    /// Reads the targets of these instances that are visible with these rights. `may_read` says which models the caller
    /// may read; `hold` takes memory for the response.
    pub(super) async fn expand(
        &self,
        instances: &[Instance],
        expands: &[Expand],
        right: &Right,
        may_read: impl Fn(&str) -> bool,
        hold: impl Fn(usize) -> Result<()>,
    ) -> Result<Expanded> {
        let mut expanded = Expanded::default();
        let mut wanted = Wanted::new();
        let all: Vec<&Expand> = expands.iter().collect();
        for instance in instances {
            let targets = self.targets(instance, &all)?;
            want(&mut wanted, &targets, &all);
            expanded.targets.push(targets);
        }
        let (budget, now) = (Budget::new(LIMITS), time::now());
        while !wanted.is_empty() {
            let mut next = Wanted::new();
            for (model, (ids, below)) in wanted.into_iter().filter(|(model, _)| may_read(model)) {
                self.core.availability.check_model(model)?;
                let Some(entry) = self.core.models.get(model) else { continue };
                let readable = reads::readable(&entry.model, right, now);
                let known = expanded.found.entry(model.to_owned()).or_default();
                let ids = ids.iter().filter(|id| is_instance_id(id));
                // An instance that was read for the previous level may have other properties to expand on this one.
                let (again, unread): (Vec<&String>, Vec<&String>) = ids.partition(|id| known.contains_key(*id));
                for id in &again {
                    if let Some(expandee) = known.get_mut(*id) {
                        expandee.targets.extend(self.targets(&expandee.instance, &below)?);
                    }
                }
                for ids in unread.chunks(IDS_AT_ONCE) {
                    let values = ids.iter().map(|id| Value::from(id.as_str())).collect();
                    let condition = Condition { path: Meta::Id.into(), operator: Operator::In(values) };
                    let limit = IDS_AT_ONCE as u32;
                    let filter = match &readable {
                        Some(readable) => both(condition.into(), readable.clone()),
                        None => condition.into(),
                    };
                    let mut query = InstanceQuery { filter, limit, ..InstanceQuery::default() };
                    loop {
                        let page = self.core.stores.model.query(model, &query, &budget).await?;
                        for instance in page.items {
                            if readable.is_some() {
                                reads::check_version(&entry.model, &instance)?;
                            }
                            hold(instance.data.len())?;
                            let targets = self.targets(&instance, &below)?;
                            known.insert(instance.id.clone(), Expandee { instance, targets });
                        }
                        match page.next {
                            Some(more) => query.cursor = Some(more),
                            None => break,
                        }
                    }
                }
                for expandee in again.iter().chain(&unread).filter_map(|id| known.get(*id)) {
                    want(&mut next, &expandee.targets, &below);
                }
            }
            wanted = next;
        }
        Ok(expanded)
    }

    /// The targets of an instance, by expanded property.
    fn targets(&self, instance: &Instance, expands: &[&Expand]) -> Result<Targets> {
        if expands.is_empty() {
            return Ok(Targets::new());
        }
        let mut memory = self.core.own_memory.lease();
        memory.resize(tree_bytes(instance.data.as_bytes()))?;
        let data = instance.data.to_value().unwrap_or_default();
        let target = |expand: &&Expand| {
            Some((Arc::clone(&expand.property), data.get(&*expand.property).and_then(Value::as_str)?.to_owned()))
        };
        Ok(expands.iter().filter_map(target).collect())
    }
}

fn want<'e>(wanted: &mut Wanted<'e>, targets: &Targets, expands: &[&'e Expand]) {
    for expand in expands {
        let Some(target) = targets.get(&expand.property) else { continue };
        let (ids, below) = wanted.entry(&expand.model).or_default();
        ids.insert(target.clone());
        for deeper in &expand.below {
            if !below.contains(&deeper) {
                below.push(deeper);
            }
        }
    }
}

//! Every item of the WIT text by name, and which of them do not have their TypeScript yet.
//!
//! `types.instance.position` is a record's field, `types.phase.pre-create` an enum's case, `read.get` a function,
//! `read.get.model` its parameter, `pre-hook.read` an import of a world and `pre-hook.check` its export.

use std::collections::BTreeSet;

use wit_parser::{Function, Interface, Resolve, TypeDef, TypeDefKind, World, WorldItem, WorldKey};

use super::WIT;
use crate::shell::Result;

/// The items without TypeScript.
pub(super) struct Contract {
    left: BTreeSet<String>,
}

impl Contract {
    pub(super) fn new(resolve: &Resolve) -> Self {
        let mut left = BTreeSet::new();
        for (_, interface) in resolve.interfaces.iter() {
            let name = interface.name.as_deref().unwrap_or_default();
            for (type_name, id) in &interface.types {
                add_type(&mut left, &format!("{name}.{type_name}"), &resolve.types[*id]);
            }
            interface.functions.values().for_each(|function| add_function(&mut left, name, function));
        }
        for (_, world) in resolve.worlds.iter() {
            for (key, item) in world.imports.iter().chain(&world.exports) {
                match item {
                    WorldItem::Function(function) => add_function(&mut left, &world.name, function),
                    WorldItem::Interface { .. } => {
                        left.insert(format!("{}.{}", world.name, key_name(resolve, key)));
                    }
                    // A name for a type that an interface defines.
                    WorldItem::Type { .. } => {}
                }
            }
        }
        Contract { left }
    }

    /// Checks that there is such an item or interface.
    pub(super) fn expect(&self, item: &str) -> Result {
        let below = format!("{item}.");
        match self.left.iter().any(|left| left == item || left.starts_with(&below)) {
            true => Ok(()),
            false => Err(format!("{WIT} has no `{item}`, which xtask/src/sdk/spelled.rs lists")),
        }
    }

    /// Marks an item as having its TypeScript. An error if there is no such item, or it is already marked.
    pub(super) fn take(&mut self, item: &str) -> Result {
        match self.left.remove(item) {
            true => Ok(()),
            false => Err(format!("{WIT} has no `{item}` (any more), or xtask/src/sdk defines it twice")),
        }
    }

    /// Checks that every item has its TypeScript. The error names one that has not.
    pub(super) fn finish(self) -> Result {
        match self.left.iter().next() {
            None => Ok(()),
            Some(item) => Err(format!("{WIT} has `{item}`, which xtask/src/sdk does not define in TypeScript")),
        }
    }
}

fn add_type(left: &mut BTreeSet<String>, item: &str, definition: &TypeDef) {
    let members: Vec<&str> = match &definition.kind {
        // A type of another interface.
        TypeDefKind::Type(_) => return,
        TypeDefKind::Record(record) => record.fields.iter().map(|field| field.name.as_str()).collect(),
        TypeDefKind::Enum(cases) => cases.cases.iter().map(|case| case.name.as_str()).collect(),
        TypeDefKind::Variant(variant) => variant.cases.iter().map(|case| case.name.as_str()).collect(),
        _ => Vec::new(),
    };
    left.insert(item.to_owned());
    left.extend(members.iter().map(|member| format!("{item}.{member}")));
}

fn add_function(left: &mut BTreeSet<String>, owner: &str, function: &Function) {
    let item = format!("{owner}.{}", function.name);
    left.extend(function.params.iter().map(|param| format!("{item}.{}", param.name)));
    left.insert(item);
}

/// The interface of that name.
pub(super) fn interface<'a>(resolve: &'a Resolve, name: &str) -> Result<&'a Interface> {
    let mut interfaces = resolve.interfaces.iter().map(|(_, interface)| interface);
    let found = interfaces.find(|interface| interface.name.as_deref() == Some(name));
    found.ok_or_else(|| format!("{WIT} has no interface `{name}`"))
}

pub(super) fn world<'a>(resolve: &'a Resolve, name: &str) -> Result<&'a World> {
    let found = resolve.worlds.iter().map(|(_, world)| world).find(|world| world.name == name);
    found.ok_or_else(|| format!("{WIT} has no world `{name}`"))
}

/// The interfaces that a world imports, in order.
pub(super) fn imports(resolve: &Resolve, world: &World) -> Vec<String> {
    let interfaces = world.imports.iter().filter(|(_, item)| matches!(item, WorldItem::Interface { .. }));
    interfaces.map(|(key, _)| key_name(resolve, key)).collect()
}

fn key_name(resolve: &Resolve, key: &WorldKey) -> String {
    match key {
        WorldKey::Name(name) => name.clone(),
        WorldKey::Interface(id) => resolve.interfaces[*id].name.clone().unwrap_or_default(),
    }
}

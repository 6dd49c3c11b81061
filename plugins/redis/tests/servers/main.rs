//! Servers that are killed or paused, that reject connections, or that have insufficient guarantees.

mod changes;
mod durability;
mod recovery;
mod settings;
mod support;
mod tls;

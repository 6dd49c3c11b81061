//! Servers that die, hang, refuse, or promise too little.

mod changes;
mod durability;
mod recovery;
mod settings;
mod support;
mod tls;

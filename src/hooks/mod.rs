//! The hook host: engines × capabilities. It does not depend on HTTP routes or on the order of steps in the commit
//! path.

pub mod access;
mod artifacts;
mod binding;
pub mod capabilities;
mod code;
pub mod context;
mod denial;
pub mod engines;
mod fair;
pub mod feed;
pub mod grant_lines;
pub mod grants;
pub mod host;
mod host_call;
pub mod host_memory;
pub mod library;
mod loaded;
mod masks;
pub mod phase_metrics;
mod places;
#[cfg(target_os = "linux")]
mod seccomp;
pub mod session;
mod sightings;
pub mod source_map;
pub mod stats;
#[cfg(test)]
pub(crate) mod testing;

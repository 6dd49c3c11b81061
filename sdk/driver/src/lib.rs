//! The crate for authors of drivers: the four store traits and their plain data.
//!
//! A driver implements one or more of [`SecureStore`], [`EventStore`], [`ModelStore`] and [`ErrorStore`] and exports
//! one constant [`Driver`]. The traits use only plain data: no generics, no host types, so that a C ABI or a network
//! transport can carry the same calls. This crate does not know HTTP, hooks or the server's configuration file.
//! `snaphook-driver-testkit` has the suites that every driver must pass.

mod actor;
mod append;
mod budget;
mod capabilities;
mod carry_over;
pub mod compare;
mod connection;
mod cursor;
mod driver;
mod error;
mod error_store;
mod event;
mod event_query;
mod event_store;
mod export;
pub mod files;
mod filter;
mod fold;
mod group;
mod group_state;
mod instances;
pub mod json;
pub mod judge;
mod like;
pub mod limits;
mod matching;
mod model_store;
mod nodes;
mod number;
mod path;
mod rows;
mod secure_store;
mod shared_map;
pub mod time;
pub mod wire;

pub use actor::{ACTOR_CLAIMS_BYTES_MAX, Actor, ActorKind};
pub use append::{Append, Appended, Claim, Conflict, Expected, Holder, Quiet, Require};
pub use budget::{Budget, CancelOnDrop, Exceeded, Limits, STEP_BYTES};
pub use capabilities::Capabilities;
pub use carry_over::{CarryOver, CarryOvers};
pub use connection::{Connection, Connections};
pub use cursor::{CURSOR_KEY_BYTES_MAX, Cursor};
pub use driver::{Driver, OpenContext, OpenFn, OpenFuture, Setting, SettingKind, Store};
pub use error::{DriverError, ErrorKind, Result};
pub use error_store::{ErrorPage, ErrorQuery, ErrorRecord, ErrorStore};
pub use event::{Cause, Event, EventKind, Position, Provenance, Stream, StreamRef, new_log_identity};
pub use event_query::{EventFilter, EventPage, EventQuery, SCAN_MAX};
pub use event_store::EventStore;
pub use export::{EXPORT_BYTES, LogExport, LogRecord, PENDING_MAX, PendingEvent};
pub use filter::{Condition, FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX, Filter, FilterSize, Operator};
pub use group::{Delivery, Group, NOTE_BYTES_MAX};
pub use group_state::{GroupState, Kept, Progress, Taken};
pub use instances::{Changes, Instances, prepare_instances};
pub use json::Json;
pub use model_store::{
    Column, ColumnKind, Instance, InstancePage, InstanceQuery, ModelShape, ModelStore, SortKey, moves_checkpoint,
};
pub use nodes::{NODE_TEXT_BYTES_MAX, NODES_MAX, Node, Nodes};
pub use path::{Meta, Path};
pub use rows::{Row, Rows, count_rows, query_rows};
pub use secure_store::{Sealed, SecureStore};
pub use shared_map::SharedMap;

pub use limits::PAYLOAD_BYTES_MAX;

/// Size of data in bytes at which a page of events or instances ends, regardless of its limit. One event or instance
/// always fits.
pub const PAGE_BYTES_MAX: usize = 2 * PAYLOAD_BYTES_MAX;

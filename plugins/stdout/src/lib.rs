//! Failed runs as lines on standard output, for log collectors. They cannot be read back.

mod config;
mod error;

use std::sync::Arc;

use snaphook_driver::{Driver, ErrorStore, OpenContext, OpenFuture};

pub use config::StdoutConfig;
pub use error::StdoutErrorStore;

/// The driver `stdout`.
pub const DRIVER: Driver = Driver {
    name: "stdout",
    settings: &[],
    connection: &[],
    secure: None,
    event: None,
    model: None,
    error: Some(|context: OpenContext| -> OpenFuture<dyn ErrorStore> {
        Box::pin(async move {
            context.settings::<StdoutConfig>()?;
            Ok(Arc::new(StdoutErrorStore) as _)
        })
    }),
};

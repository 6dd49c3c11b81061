//! The background task of the tokens: reads changes of other nodes, and writes last uses.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::error::TokenError;
use super::store::TokenStore;

/// How often the list of tokens is read.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(2);
/// How often last uses are written; a crash loses at most this much.
pub const USAGE_INTERVAL: Duration = Duration::from_secs(60);

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<TokenStore>) {
    let mut ticks = interval(REFRESH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut reading, mut writing) = (Trouble::default(), Trouble::default());
    let mut written = Instant::now();
    loop {
        ticks.tick().await;
        let consequence =
            "the tokens that were read last stay valid, including those that another node has revoked since";
        reading.report(shared.refresh().await, consequence);
        if written.elapsed() >= USAGE_INTERVAL {
            writing.report(shared.write_uses().await, "only this node knows when its tokens were last used");
            written = Instant::now();
        }
    }
}

/// Whether the last attempt failed, so that only changes are logged.
#[derive(Default)]
struct Trouble(bool);

impl Trouble {
    fn report(&mut self, result: Result<(), TokenError>, consequence: &str) {
        match result {
            Ok(()) if self.0 => tracing::info!("the tokens in the secure storage can be used again"),
            Err(ref error) if !self.0 => tracing::warn!("{error}; {consequence}"),
            _ => {}
        }
        self.0 = result.is_err();
    }
}

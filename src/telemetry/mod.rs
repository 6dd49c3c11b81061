//! How the server is seen from outside: the text of its metrics, histograms, and what the system says of the process.
//!
//! Each layer counts what it does where it does it; here is how counts become text. The writer is our own: `prometheus-client`
//! writes OpenMetrics only, takes a lock for each histogram and each look at a label, and allocates labels; here counting is an
//! atomic add.

pub mod exposition;
pub mod histogram;
pub mod line;
pub mod process;
pub mod repeats;
pub mod trace;

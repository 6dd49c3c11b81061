//! The hook host: engines × capabilities. Knows nothing of HTTP routes or of the commit path's order of steps.

pub mod access;
pub mod context;
pub mod engines;
pub mod session;

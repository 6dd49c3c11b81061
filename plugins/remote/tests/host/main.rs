//! The host as its clients see it: access, limits, and how the driver handles responses that are not from a host.

mod access;
mod gateway;
mod leaving;
mod patience;
mod sharing;
mod support;
mod tls;

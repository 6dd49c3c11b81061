//! The host from outside: who is served, what it bears, and what the driver makes of what is no host.

mod access;
mod gateway;
mod leaving;
mod patience;
mod sharing;
mod support;
mod tls;

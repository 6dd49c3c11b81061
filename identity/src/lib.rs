//! Identifies callers and defines their rights.
//!
//! [`Identity::identify`] turns the header `Authorization` into a [`Caller`]: an actor with a role and the models that it
//! may use. Callers have tokens of this server ([`Tokens`], kept as digests in the secure store) or tokens of an OpenID
//! Connect issuer ([`Oidc`]). [`Attempts`] delays the failures of an address that keeps guessing, and [`RateLimit`] counts
//! requests. This crate knows no HTTP server, no routes and no configuration file.
//!
//! All input from clients is limited: the length of a token before it is parsed, the memory for addresses, verified
//! tokens and claims, and how often an unknown key causes a request to the issuer.

mod attempts;
mod caller;
mod claims;
mod denied;
pub mod glob;
mod identity;
mod oidc;
mod rate;
mod role;
mod scope;
mod table;
mod tokens;

pub use attempts::{Attempts, client_of};
pub use caller::Caller;
pub use claims::Claims;
pub use denied::{Denied, DeniedKind};
pub use identity::{AUTHORIZATION_BYTES_MAX, Identity};
pub use oidc::{CLAIMS_BYTES_MAX, KEYS_AGE_MAX, Oidc, OidcSettings, VERIFIED_FOR};
pub use rate::RateLimit;
pub use role::Role;
pub use scope::{PATTERN_BYTES_MAX, PATTERNS_MAX, Scope};
pub use snaphook_driver::{Actor, ActorKind};
pub use tokens::{
    MadeToken, REFRESH_INTERVAL, TOKENS_MAX, TokenError, TokenErrorKind, TokenInfo, TokenRequest, TokenText, Tokens,
    USAGE_INTERVAL,
};

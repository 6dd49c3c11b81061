//! Who an operation is for.

use snaphook_identity::Role;

/// What an operation asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Nothing: no token is looked at.
    Anyone,
    /// Nothing, but a token that is sent must be valid: who it is of decides what is shown.
    Guest,
    Reader,
    Writer,
    Admin,
}

impl Needs {
    /// The lowest role that may call; `None`: no role is needed.
    pub(super) fn role(self) -> Option<Role> {
        match self {
            Needs::Anyone | Needs::Guest => None,
            Needs::Reader => Some(Role::Reader),
            Needs::Writer => Some(Role::Writer),
            Needs::Admin => Some(Role::Admin),
        }
    }
}

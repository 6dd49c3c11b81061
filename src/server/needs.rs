//! The required role of an operation.

use snaphook_identity::Role;

/// The requirements of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// None: tokens are ignored.
    Anyone,
    /// None, but a token must be valid if it is sent, because the caller determines what is shown.
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

//! The hooks of a module, and its flags.

use std::ops::BitOr;

use snaphook_module_abi as abi;

/// The hooks that a module has; others are never called. Join them with `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooks(u32);

impl Hooks {
    pub const CONNECTION_START: Hooks = Hooks(1);
    pub const CONNECTION_END: Hooks = Hooks(1 << 1);
    pub const CONNECTION_READ: Hooks = Hooks(1 << 2);
    pub const CONNECTION_WRITE: Hooks = Hooks(1 << 3);
    pub const BEFORE_REQUEST: Hooks = Hooks(1 << 4);
    pub const REQUEST: Hooks = Hooks(1 << 5);
    pub const REQUEST_ERROR: Hooks = Hooks(1 << 6);
    pub const RESPONSE: Hooks = Hooks(1 << 7);
    pub const REQUEST_BODY: Hooks = Hooks(1 << 8);
    pub const RESPONSE_BODY: Hooks = Hooks(1 << 9);

    /// The same as `|`, for constants.
    pub const fn and(self, other: Hooks) -> Hooks {
        Hooks(self.0 | other.0)
    }

    pub(crate) const fn has_any(self, other: Hooks) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) const fn of_connections() -> Hooks {
        Hooks(0b1111)
    }
}

impl BitOr for Hooks {
    type Output = Hooks;
    fn bitor(self, other: Hooks) -> Hooks {
        self.and(other)
    }
}

/// How the server calls a module's hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Hooks may block, so they run on separate threads for the module.
    pub blocking: bool,
    /// `before_request` and `request` get the complete request body.
    pub whole_request: bool,
    /// `response` gets the complete response body.
    pub whole_response: bool,
}

impl Flags {
    /// No flags, for constants.
    pub const NONE: Flags = Flags { blocking: false, whole_request: false, whole_response: false };

    pub(crate) fn bits(self) -> u32 {
        let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        bit(self.blocking, abi::BLOCKING)
            | bit(self.whole_request, abi::REQUEST_WHOLE)
            | bit(self.whole_response, abi::RESPONSE_WHOLE)
    }
}

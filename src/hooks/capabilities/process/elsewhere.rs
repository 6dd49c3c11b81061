//! Systems other than Linux: programs are not supported yet. The sandbox (namespaces, Landlock, seccomp) only exists on
//! Linux; without it a grant would allow more than it says.

use std::time::Duration;

use super::super::super::access::{AccessCode, AccessError};
use super::super::super::host_call::{ProcessCommand, ProcessOutput};
use crate::config::ProcessGrant;
use crate::hooks::fair;

pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Runs programs.
#[derive(Default)]
pub struct Processes {}

impl Processes {
    pub(in crate::hooks) fn clean_up() {}

    pub(super) async fn run(
        &self,
        _key: fair::Key,
        _grant: &ProcessGrant,
        _command: ProcessCommand,
        _timeout: Duration,
    ) -> Result<ProcessOutput, AccessError> {
        let message = format!("programs need Linux, whose sandboxing confines them; this is {}", std::env::consts::OS);
        Err(AccessError::new(AccessCode::Failed, message))
    }
}

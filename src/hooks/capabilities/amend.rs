//! `amend`: a pre hook's changed data is only accepted with the grant. The server, which knows the schema, validates
//! the data.

use super::super::context::{Failure, FailureCause};
use super::super::grants::Capability;
use super::super::session::Session;

impl Session {
    /// Checks that this call may amend and records the use; without the grant, returns the failure.
    pub(in super::super) fn check_amend(&self) -> Result<(), Failure> {
        let model = self.grantee().hook().map(|hook| hook.model.clone()).unwrap_or_default();
        self.note(Capability::Amend, model, self.granted.amend);
        if self.granted.amend {
            return Ok(());
        }
        let denial = self.granted.denial(Capability::Amend, "a change of the data", "true", |grant| grant.amend);
        Err(Failure { cause: FailureCause::Amend, message: denial.message, limit: None })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::context::FailureCause;
    use super::super::super::testing::Bench;
    use crate::config::Phase;

    #[test]
    fn only_with_the_grant() {
        let bench = Bench::new();
        assert!(bench.session("invoice", Phase::PreUpdate, "tidy", "amend = true").check_amend().is_ok());
        let session = bench.session("invoice", Phase::PreUpdate, "tidy", "");
        let failure = session.check_amend().unwrap_err();
        assert_eq!(failure.cause, FailureCause::Amend);
        assert!(failure.message.ends_with("hook = 'tidy'\namend = true"), "{}", failure.message);
        assert!(bench.session_after(&failure.message, "invoice", Phase::PreUpdate, "tidy").check_amend().is_ok());
    }

    #[test]
    fn never_where_there_is_nothing_to_amend() {
        let bench = Bench::new();
        for phase in [Phase::PreDelete, Phase::PostCreate, Phase::PostUpdate, Phase::PostDelete] {
            let failure = bench.session("invoice", phase, "tidy", "amend = true").check_amend().unwrap_err();
            assert!(failure.message.contains("no grant can open `amend`"), "{}", failure.message);
        }
    }
}

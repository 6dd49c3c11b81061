//! The actor of a request, with its rights.

use std::sync::Arc;

use snaphook_driver::{Actor, ActorKind};

use crate::claims::Claims;
use crate::role::Role;
use crate::scope::Scope;

/// An actor with its rights.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// Shared, so that events take it without a copy.
    pub actor: Arc<Actor>,
    /// All claims of an issuer's token, for rules; the actor only contains those that may be stored in events.
    pub claims: Option<Arc<Claims>>,
    pub role: Role,
    pub models: Scope,
}

impl Caller {
    pub fn new(actor: Actor, role: Role, models: Scope) -> Caller {
        Caller { actor: Arc::new(actor), claims: None, role, models }
    }

    /// A subject of an issuer.
    pub fn of_issuer(subject: String, claims: Claims, role: Role, models: Scope) -> Caller {
        let actor = Actor::new(ActorKind::Oidc, subject).with_claims(claims.text());
        Caller { actor: Arc::new(actor), claims: Some(Arc::new(claims)), role, models }
    }

    /// The caller of a server in open mode.
    pub fn anonymous() -> Caller {
        Caller::new(Actor::anonymous(), Role::Admin, Scope::ALL)
    }

    pub fn may_read(&self, model: &str) -> bool {
        self.is_admin() || self.models.allows(model)
    }

    pub fn may_write(&self, model: &str) -> bool {
        self.role >= Role::Writer && self.may_read(model)
    }

    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }

    /// Whether the rules of models are skipped. In open mode they apply, although every caller is an admin.
    pub fn bypasses_rules(&self) -> bool {
        self.is_admin() && self.actor.kind != ActorKind::Anonymous
    }
}

#[cfg(test)]
mod tests {
    use snaphook_driver::ACTOR_CLAIMS_BYTES_MAX;

    use super::*;

    #[test]
    fn rights_follow_role_and_models() {
        let scope = || Scope::new(vec!["order".to_owned(), "audit-*".to_owned()]).unwrap();
        let actor = || Actor::new(ActorKind::Token, "ci");
        let rows = [
            (Role::Reader, "order", true, false),
            (Role::Reader, "film", false, false),
            (Role::Writer, "audit-1", true, true),
            (Role::Writer, "film", false, false),
            (Role::Admin, "film", true, true),
        ];
        for (role, model, reads, writes) in rows {
            let caller = Caller::new(actor(), role, scope());
            assert_eq!((caller.may_read(model), caller.may_write(model)), (reads, writes), "{role} {model}");
            assert_eq!(caller.is_admin(), role == Role::Admin);
            assert_eq!(caller.bypasses_rules(), role == Role::Admin);
        }
        let anonymous = Caller::anonymous();
        assert!(anonymous.is_admin() && anonymous.may_write("film") && !anonymous.bypasses_rules());
    }

    #[test]
    fn a_caller_has_all_claims_and_its_actor_what_an_event_may_have() {
        for (length, kept) in [(100, true), (ACTOR_CLAIMS_BYTES_MAX, false)] {
            let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(length));
            let claims = Claims::parse(&text).unwrap();
            let caller = Caller::of_issuer("u1".to_owned(), claims, Role::Reader, Scope::ALL);
            assert_eq!(caller.claims.unwrap().text().as_str(), text);
            assert_eq!(caller.actor.claims.is_some(), kept);
        }
    }
}

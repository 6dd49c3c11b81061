//! Who acts, and with which rights.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::claims::Claims;
use crate::role::Role;
use crate::scope::Scope;

/// How an actor is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// Nobody was asked: `mode = 'open'`.
    Anonymous,
    /// By a token of this server.
    Token,
    /// By a token of an OpenID Connect issuer.
    Oidc,
    /// A hook, which acts for the server.
    Hook,
}

/// Who acts, as events record it. Two actors are the same if their kind and id are: an issuer may name a subject like a
/// token of this server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Actor {
    /// The name of a token, the subject of an issuer, or the name of a hook.
    pub id: String,
    pub kind: ActorKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Claims>,
}

/// An actor with its rights.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// Shared, so that events and hooks take it without a copy.
    pub actor: Arc<Actor>,
    pub role: Role,
    pub models: Scope,
}

impl Caller {
    pub fn new(actor: Actor, role: Role, models: Scope) -> Caller {
        Caller { actor: Arc::new(actor), role, models }
    }

    /// Whoever calls a server in open mode.
    pub fn anonymous() -> Caller {
        let actor = Actor { id: "anonymous".to_owned(), kind: ActorKind::Anonymous, claims: None };
        Caller::new(actor, Role::Admin, Scope::ALL)
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

    /// Whether the rules of models are not asked. They are in open mode, although everyone is an admin there.
    pub fn bypasses_rules(&self) -> bool {
        self.is_admin() && self.actor.kind != ActorKind::Anonymous
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_follow_role_and_models() {
        let scope = || Scope::new(vec!["order".to_owned(), "audit-*".to_owned()]).unwrap();
        let actor = || Actor { id: "ci".to_owned(), kind: ActorKind::Token, claims: None };
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
    fn actors_are_written_as_events_have_them() {
        let mut actor = Actor { id: "u1".to_owned(), kind: ActorKind::Oidc, claims: None };
        assert_eq!(serde_json::to_string(&actor).unwrap(), r#"{"id":"u1","kind":"oidc"}"#);
        actor.claims = Some(Claims::parse(r#"{"n":1.50}"#).unwrap());
        assert_eq!(serde_json::to_string(&actor).unwrap(), r#"{"id":"u1","kind":"oidc","claims":{"n":1.50}}"#);
    }
}

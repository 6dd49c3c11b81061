//! On whose behalf something is read or written.

use std::sync::Arc;

use serde_json::Value;
use snaphook_driver::Actor;
use snaphook_identity::{Caller, Claims};

/// The rights of a read or write.
#[derive(Clone, Debug, Default)]
pub enum Right {
    /// The rights of the server and of admins: rules do not apply.
    #[default]
    Server,
    Subject(Subject),
}

/// The subject of rules.
#[derive(Clone, Debug)]
pub struct Subject {
    actor: Arc<Actor>,
    claims: Option<Arc<Claims>>,
}

impl Right {
    /// The rights of a caller; `None` is an unknown caller.
    pub fn of_caller(caller: Option<&Caller>) -> Right {
        match caller {
            Some(caller) if caller.bypasses_rules() => Right::Server,
            Some(caller) => Right::Subject(Subject { actor: Arc::clone(&caller.actor), claims: caller.claims.clone() }),
            None => Right::of_actor(None),
        }
    }

    /// The rights of the actor of an event. Its role is not in the event, so the rules always apply.
    pub fn of_actor(actor: Option<&Arc<Actor>>) -> Right {
        let actor = actor.map_or_else(|| Arc::new(Actor::anonymous()), Arc::clone);
        // Unreadable claims count as absent.
        let claims = actor.claims.as_ref().and_then(|claims| Claims::parse(claims).ok()).map(Arc::new);
        Right::Subject(Subject { actor, claims })
    }

    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Right::Server => None,
            Right::Subject(subject) => Some(subject),
        }
    }
}

impl Subject {
    pub(super) fn id(&self) -> Value {
        Value::from(self.actor.id.as_str())
    }

    pub(super) fn kind(&self) -> Value {
        Value::from(self.actor.kind.as_str())
    }

    pub(super) fn claim(&self, path: &str) -> Option<&Value> {
        self.claims.as_ref()?.get(path)
    }
}

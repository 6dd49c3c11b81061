//! The actor of events and hooks.
//!
//! An actor is an object, `{"id", "kind", "claims"?}`. A store may keep it as one text, [`Actor::to_text`]. Older
//! events have a text of another form, such as `token:ci`; readers accept both ([`Actor::from_text`]).

use std::fmt;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::{self, Json};

/// Maximum size of an event's claims in bytes. Larger claims are omitted as a whole.
pub const ACTOR_CLAIMS_BYTES_MAX: usize = 4 << 10;

/// How an actor was identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// Not identified: `mode = 'open'`.
    Anonymous,
    /// By a token of this server.
    Token,
    /// By a token of an OpenID Connect issuer.
    Oidc,
    /// A hook, which acts for the server.
    Hook,
    /// A custom endpoint, which acts for the server.
    Endpoint,
    /// A sandboxed server module, which acts for the server.
    Module,
    /// The server itself, such as when it applies its folder of models at its start.
    Server,
}

impl ActorKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            ActorKind::Anonymous => "anonymous",
            ActorKind::Token => "token",
            ActorKind::Oidc => "oidc",
            ActorKind::Hook => "hook",
            ActorKind::Endpoint => "endpoint",
            ActorKind::Module => "module",
            ActorKind::Server => "server",
        }
    }
}

impl fmt::Display for ActorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who made a change. Two actors are equal if their kind and id are ([`Actor::identity`]), regardless of their claims,
/// because claims change from token to token. The kind matters because a subject of an issuer and a token of this
/// server may have the same id.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Actor {
    /// The name of a token, the subject of an issuer, or the name of a hook, endpoint or module.
    pub id: String,
    pub kind: ActorKind,
    /// The issuer's claims about the subject: an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Json>,
}

impl Actor {
    pub fn new(kind: ActorKind, id: impl Into<String>) -> Actor {
        Actor { id: id.into(), kind, claims: None }
    }

    pub fn anonymous() -> Actor {
        Actor::new(ActorKind::Anonymous, "anonymous")
    }

    /// Adds claims, the text of an object, unless they are larger than an event may have.
    pub fn with_claims(self, claims: &Json) -> Actor {
        if claims.len() > ACTOR_CLAIMS_BYTES_MAX {
            return self;
        }
        // Line breaks can only be between tokens of JSON, where spaces are equivalent, and an event is one line.
        let claims = match claims.contains(['\n', '\r']) {
            true => Json::trusted(claims.replace(['\n', '\r'], " ")),
            false => claims.clone(),
        };
        Actor { claims: Some(claims), ..self }
    }

    /// The parts that are equal for equal actors.
    pub fn identity(&self) -> (ActorKind, &str) {
        (self.kind, &self.id)
    }

    /// The JSON text of the object.
    pub fn to_text(&self) -> String {
        // Strings and JSON cannot fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the text of an actor: an object, or an older form, `anonymous`, `token:ID`, `oidc:ID`, `hook:ID`, `apply`.
    /// Any other text is the id of an unknown actor, which has the fewest rights.
    pub fn from_text(text: &str) -> Actor {
        if text.starts_with('{')
            && let Ok(actor) = json::typed(text).map(Members::into_actor)
        {
            return actor;
        }
        let forms = [("token:", ActorKind::Token), ("oidc:", ActorKind::Oidc), ("hook:", ActorKind::Hook)];
        match forms.into_iter().find_map(|(form, kind)| Some((text.strip_prefix(form)?, kind))) {
            Some((id, kind)) => Actor::new(kind, id),
            None if text == "apply" => Actor::new(ActorKind::Server, text),
            None => Actor::new(ActorKind::Anonymous, text),
        }
    }
}

/// `token:ci`, without claims, for messages and logs.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ActorKind::Anonymous => f.write_str(&self.id),
            kind => write!(f, "{kind}:{}", self.id),
        }
    }
}

#[derive(Deserialize)]
struct Members {
    id: String,
    kind: KnownKind,
    claims: Option<Json>,
}

/// A later version may know more kinds.
#[derive(Deserialize)]
#[serde(untagged)]
enum KnownKind {
    Known(ActorKind),
    Unknown(IgnoredAny),
}

impl Members {
    /// An actor of an unknown kind has the fewest rights, so also no claims.
    fn into_actor(self) -> Actor {
        match self {
            Members { id, kind: KnownKind::Known(kind), claims } => Actor { id, kind, claims },
            Members { id, kind: KnownKind::Unknown(_), .. } => Actor::new(ActorKind::Anonymous, id),
        }
    }
}

/// From the object, or from a text of an older form.
impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Actor, D::Error> {
        struct Forms;
        impl<'de> Visitor<'de> for Forms {
            type Value = Actor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an actor: an object with `id` and `kind`, or a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Actor, E> {
                Ok(Actor::from_text(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Actor, A::Error> {
                Members::deserialize(MapAccessDeserializer::new(map)).map(Members::into_actor)
            }
        }
        deserializer.deserialize_any(Forms)
    }
}

/// For `#[serde(with = "shared")]`: one actor that many events share.
pub(crate) mod shared {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(actor: &Option<Arc<Actor>>, serializer: S) -> Result<S::Ok, S::Error> {
        actor.as_deref().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<Actor>>, D::Error> {
        Ok(Option::<Actor>::deserialize(deserializer)?.map(Arc::new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_today_and_of_before() {
        let claims = Json::trusted(r#"{"n":1.50,"x":["ä"]}"#);
        for (text, expected) in [
            (r#"{"id":"u1","kind":"oidc"}"#, Actor::new(ActorKind::Oidc, "u1")),
            (
                r#"{"id":"u1","kind":"oidc","claims":{"n":1.50,"x":["ä"]}}"#,
                Actor::new(ActorKind::Oidc, "u1").with_claims(&claims),
            ),
            (r#"{"id":"quote","kind":"endpoint"}"#, Actor::new(ActorKind::Endpoint, "quote")),
            (r#"{"id":"limit","kind":"module"}"#, Actor::new(ActorKind::Module, "limit")),
            (r#"{"id":"apply","kind":"server"}"#, Actor::new(ActorKind::Server, "apply")),
            (r#"{"id":"anonymous","kind":"anonymous"}"#, Actor::anonymous()),
        ] {
            assert_eq!(Actor::from_text(text), expected, "{text}");
            assert_eq!(expected.to_text(), text);
            assert_eq!(json::typed::<Actor>(text).unwrap(), expected);
            let quoted = serde_json::to_string(text).unwrap();
            assert_eq!(json::typed::<Actor>(&quoted).unwrap(), expected, "a text in a text");
        }
        // Texts that a later version might write.
        for text in [
            r#"{"id":"u1","kind":"robot","claims":{"role":"admin"}}"#,
            r#"{"id":"u1","kind":{"of":1},"more":[{}]}"#,
            r#"{"kind":7,"id":"u1"}"#,
        ] {
            let expected = Actor::new(ActorKind::Anonymous, "u1");
            assert_eq!(Actor::from_text(text), expected, "{text}");
            assert_eq!(json::typed::<Actor>(text).unwrap(), expected, "{text}");
        }
        for (text, kind, id) in [
            ("anonymous", ActorKind::Anonymous, "anonymous"),
            ("token:ci", ActorKind::Token, "ci"),
            ("token:oidc:x", ActorKind::Token, "oidc:x"),
            ("oidc:auth0|7", ActorKind::Oidc, "auth0|7"),
            ("hook:order.postCreate/mail", ActorKind::Hook, "order.postCreate/mail"),
            ("apply", ActorKind::Server, "apply"),
            ("ann", ActorKind::Anonymous, "ann"),
            ("", ActorKind::Anonymous, ""),
            ("{", ActorKind::Anonymous, "{"),
            (r#"{"id":"x"}"#, ActorKind::Anonymous, r#"{"id":"x"}"#),
        ] {
            assert_eq!(Actor::from_text(text), Actor::new(kind, id), "{text}");
        }
        assert!(json::typed::<Actor>("7").is_err() && json::typed::<Actor>(r#"{"id":"x"}"#).is_err());
    }

    #[test]
    fn claims_count_for_nothing_when_actors_are_compared_and_are_bounded() {
        let plain = Actor::new(ActorKind::Oidc, "u1");
        let text = |length: usize| Json::trusted(format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8)));
        let full = plain.clone().with_claims(&text(ACTOR_CLAIMS_BYTES_MAX));
        assert!(full.claims.is_some() && full.identity() == plain.identity() && full != plain);
        assert_eq!(plain.clone().with_claims(&text(ACTOR_CLAIMS_BYTES_MAX + 1)), plain);
        let broken = plain.clone().with_claims(&Json::trusted("{\r\n\"a\":\n1}"));
        assert_eq!(broken.claims.unwrap().as_str(), r#"{  "a": 1}"#);
        assert_ne!(plain.identity(), Actor::new(ActorKind::Token, "u1").identity());
        assert_eq!([plain.to_string(), Actor::anonymous().to_string()], ["oidc:u1", "anonymous"]);
    }
}

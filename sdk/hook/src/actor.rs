//! The actor who made a change.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Result, data};

/// The actor who made a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The name of a token, the subject of an issuer, or the name of a hook, endpoint or module.
    pub id: String,
    /// `anonymous`, `token`, `oidc`, `hook`, `endpoint`, `module` or `server`.
    pub kind: String,
    /// JSON text of the issuer's claims about the subject: an object.
    pub claims: Option<String>,
}

impl Actor {
    /// Reads the server's text: a JSON object, or plain text from an older server.
    pub(crate) fn read(text: String) -> Actor {
        #[derive(Deserialize)]
        struct Members {
            id: String,
            kind: String,
            claims: Option<Box<RawValue>>,
        }
        match serde_json::from_str::<Members>(&text) {
            Ok(Members { id, kind, claims }) => {
                Actor { id, kind, claims: claims.map(|claims| claims.get().to_owned()) }
            }
            Err(_) => Actor { id: text, kind: "anonymous".to_owned(), claims: None },
        }
    }

    /// One claim in a type of the hook; `None` if it is absent or null.
    pub fn claim<T: serde::de::DeserializeOwned + 'static>(&self, name: &str) -> Result<Option<T>> {
        let Some(claims) = &self.claims else { return Ok(None) };
        let claims: HashMap<String, &RawValue> = serde_json::from_str(claims)?;
        let Some(claim) = claims.get(name).filter(|claim| claim.get() != "null") else { return Ok(None) };
        let fault = |error| Error::Fail(format!("the claim `{name}` does not fit the hook's type: {error}"));
        data::read(claim.get()).map(Some).map_err(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_today_and_of_before() {
        let text = r#"{"id":"u1","kind":"oidc","claims":{"team":"a","n":null}}"#;
        let actor = Actor::read(text.to_owned());
        assert_eq!((&*actor.id, &*actor.kind), ("u1", "oidc"));
        assert_eq!(actor.claim::<String>("team").unwrap().as_deref(), Some("a"));
        assert_eq!(actor.claim::<u32>("n").unwrap(), None);
        assert_eq!(actor.claim::<String>("other").unwrap(), None);
        assert!(actor.claim::<u32>("team").is_err());
        let before = Actor::read("token:ci".to_owned());
        assert_eq!(before, Actor { id: "token:ci".to_owned(), kind: "anonymous".to_owned(), claims: None });
    }
}

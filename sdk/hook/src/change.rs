//! The change for which a hook runs.

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Actor, Error, Result, Verdict, data};

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    PreCreate,
    PostCreate,
    PreUpdate,
    PostUpdate,
    PreDelete,
    PostDelete,
}

impl Phase {
    /// Whether the hook decides before the change is stored.
    pub const fn is_pre(self) -> bool {
        matches!(self, Phase::PreCreate | Phase::PreUpdate | Phase::PreDelete)
    }

    /// The name in paths and grants, such as `preCreate`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::PreCreate => "preCreate",
            Phase::PostCreate => "postCreate",
            Phase::PreUpdate => "preUpdate",
            Phase::PostUpdate => "postUpdate",
            Phase::PreDelete => "preDelete",
            Phase::PostDelete => "postDelete",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One change.
#[derive(Clone, Debug)]
pub struct Change<T> {
    pub phase: Phase,
    /// Id and version of the model.
    pub model: String,
    pub model_version: u64,
    /// Id of the instance.
    pub id: String,
    /// The data before the change; absent for a creation.
    pub before: Option<T>,
    /// The data after the change; absent for a deletion.
    pub after: Option<T>,
    /// The same as unchanged JSON text.
    pub before_text: Option<String>,
    pub after_text: Option<String>,
    pub actor: Option<Actor>,
    pub request_id: Option<String>,
    /// RFC 3339, UTC, with milliseconds.
    pub time: String,
    /// Post phases: the event that the hook reacts to.
    pub event: Option<Event>,
    /// 1 at first; greater than 1 when a post hook is retried.
    pub attempt: u32,
}

/// The event that a post hook reacts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub position: u64,
    pub id: String,
}

/// A change whose data was not parsed yet.
pub(crate) type Raw = Change<()>;

impl Raw {
    /// Reads the data into the hook's type.
    pub(crate) fn typed<T: serde::de::DeserializeOwned + 'static>(self) -> Result<Change<T>> {
        let read = |text: &Option<String>, which: &str| {
            let read = text.as_deref().map(data::read).transpose();
            read.map_err(|error| Error::Fail(format!("`{which}` does not fit the hook's type: {error}")))
        };
        let (before, after) = (read(&self.before_text, "before")?, read(&self.after_text, "after")?);
        let Change {
            phase,
            model,
            model_version,
            id,
            before_text,
            after_text,
            actor,
            request_id,
            time,
            event,
            attempt,
            ..
        } = self;
        Ok(Change {
            phase,
            model,
            model_version,
            id,
            before,
            after,
            before_text,
            after_text,
            actor,
            request_id,
            time,
            event,
            attempt,
        })
    }
}

impl<T> Change<T> {
    /// Changes single members of `after`; the text of all others stays the same, so numbers keep their digits.
    pub fn amend(&self) -> Result<Amend> {
        let text = self.after_text.as_deref().ok_or("a deletion has no data that could be amended")?;
        Ok(Amend(serde_json::from_str(text)?))
    }
}

/// Data whose members are changed one by one.
#[derive(Debug)]
pub struct Amend(Members);

impl Amend {
    /// Sets a member, in its place or at the end.
    pub fn set(mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<Amend> {
        let value = serde_json::value::to_raw_value(value)?;
        match self.0.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.0.push((name.to_owned(), value)),
        }
        Ok(self)
    }

    /// Removes a member.
    #[must_use]
    pub fn remove(mut self, name: &str) -> Amend {
        self.0.0.retain(|(known, _)| known != name);
        self
    }

    pub fn verdict(self) -> Result<Verdict> {
        Verdict::amend(&self.0)
    }
}

/// An object's members in their order, each as its text.
#[derive(Debug)]
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl Serialize for Members {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

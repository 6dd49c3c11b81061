//! A phase of a model as commands about bound hooks name it: `order.preCreate`, or `order.preCreate/check` for one hook.

use super::phase::phase;
use crate::catalog::is_hook_name;
use crate::cli::client::path;
use crate::config::{Phase, is_model_id};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) model: String,
    pub(super) phase: Phase,
    /// One hook of the chain.
    pub(super) hook: Option<String>,
}

impl At {
    /// The path of the phase, with more segments behind it.
    pub(super) fn path(&self, more: &[&str]) -> String {
        path(&[&["models", &self.model, "hooks", self.phase.as_str()], more].concat())
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.model, self.phase)?;
        self.hook.as_ref().map_or(Ok(()), |hook| write!(f, "/{hook}"))
    }
}

pub(super) fn at(text: &str) -> Result<At, String> {
    let (model, rest) =
        text.split_once('.').ok_or("not a model and phase, expected a value such as `order.preCreate`")?;
    let (name, hook) = rest.split_once('/').map_or((rest, None), |(name, hook)| (name, Some(hook)));
    if !is_model_id(model) {
        return Err(format!("`{}` is not a model id", model.escape_debug()));
    }
    if hook.is_some_and(|hook| !is_hook_name(hook)) {
        return Err("the name of a hook is expected after the `/`".to_owned());
    }
    let phase = phase(name).map_err(|message| format!("`{}` is {message}", name.escape_debug()))?;
    Ok(At { model: model.to_owned(), phase, hook: hook.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let whole = at("order.preCreate").unwrap();
        assert_eq!((whole.model.as_str(), whole.phase, whole.hook.as_deref()), ("order", Phase::PreCreate, None));
        assert_eq!(whole.path(&["log"]), "/models/order/hooks/preCreate/log");
        assert_eq!(at("order.preCreate/a.b").unwrap().hook.as_deref(), Some("a.b"));
        assert_eq!(at("order.preCreate/a.b").unwrap().to_string(), "order.preCreate/a.b");
        for (bad, says) in [
            ("order", "such as `order.preCreate`"),
            ("order.precreate", "did you mean `preCreate`?"),
            ("Order.preCreate", "`Order` is not a model id"),
            ("order.preCreate/", "the name of a hook"),
        ] {
            let said = at(bad).unwrap_err();
            assert!(said.contains(says), "{bad}: {said}");
        }
    }
}

//! The names of phases, with a hint for those who mistype one.

use crate::config::{Phase, closest};

pub(super) fn phase(text: &str) -> std::result::Result<Phase, String> {
    Phase::from_name(text).ok_or_else(|| {
        let names = Phase::ALL.map(Phase::as_str);
        match closest(text, names) {
            Some(name) => format!("not a phase, did you mean `{name}`?"),
            None => format!("not a phase, expected one of {}", names.join(", ")),
        }
    })
}

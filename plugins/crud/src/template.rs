//! Path templates with `{model}` and `{id}`, which give each model and each instance its own address.

use snaphook_driver_peer::escape;

/// A parsed path template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Model,
    Id,
}

/// Whether a path contains the id of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    Never,
    May,
    Must,
}

impl Template {
    /// Parses a path. An error says what is wrong with it.
    pub(crate) fn parse(text: &str, id: Id) -> Result<Template, String> {
        if !text.starts_with('/') {
            return Err("does not begin with `/`".into());
        }
        if let Some(char) = text.chars().find(|char| !char.is_ascii_graphic() || matches!(char, '#' | '\\')) {
            return Err(format!("contains {char:?}"));
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, behind) = behind.split_once('}').ok_or("has `{` without `}`")?;
            if !parts.is_empty() && !before.bytes().any(separates) {
                return Err(format!(
                    "has no separator such as `/` before `{{{name}}}`, so different ids may result in the same address"
                ));
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(match name {
                "model" => Part::Model,
                "id" if id != Id::Never => Part::Id,
                _ => return Err(format!("contains `{{{name}}}`, which is not allowed there")),
            });
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        if !parts.contains(&Part::Model) {
            return Err("lacks `{model}`, so models would share an address".into());
        }
        if id == Id::Must && !parts.contains(&Part::Id) {
            return Err("lacks `{id}`, so instances would share an address".into());
        }
        let template = Template(parts);
        match template.fill("m", "i") {
            Some(_) => Ok(template),
            None => Err("contains a segment `.` or `..`".into()),
        }
    }

    /// The path of a model's records, or of one record. `None` if it is impossible, because `.` and `..` have a special
    /// meaning.
    pub(crate) fn fill(&self, model: &str, id: &str) -> Option<String> {
        let path: String = self
            .0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.clone(),
                Part::Model => escape(model),
                Part::Id => escape(id),
            })
            .collect();
        let folders = path.split('?').next().unwrap_or_default();
        let is_dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
        (!folders.split('/').any(is_dots)).then_some(path)
    }
}

/// Whether no escaped id contains this character.
fn separates(byte: u8) -> bool {
    !byte.is_ascii_alphanumeric() && !b"-._~%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_filled_in_and_escaped() {
        for (template, id, expected) in [
            ("/{model}/{id}", Id::Must, "/m-1/a%2F..%3Fx"),
            ("/x/{model}", Id::Never, "/x/m-1"),
            ("/x/{model}", Id::May, "/x/m-1"),
            ("/rows?table={model}&id=eq.{id}", Id::Must, "/rows?table=m-1&id=eq.a%2F..%3Fx"),
            ("/{id}:{model}/{id}", Id::May, "/a%2F..%3Fx:m-1/a%2F..%3Fx"),
        ] {
            assert_eq!(Template::parse(template, id).unwrap().fill("m-1", "a/..?x").as_deref(), Some(expected));
        }
        let template = Template::parse("/{model}/{id}", Id::Must).unwrap();
        for id in [".", ".."] {
            assert_eq!(template.fill("m", id), None);
        }
        for (template, id, reason) in [
            ("", Id::Must, "begin"),
            ("{model}", Id::Never, "begin"),
            ("/x", Id::Never, "`{model}`"),
            ("/x/{id}", Id::Must, "`{model}`"),
            ("/{model}", Id::Must, "`{id}`, so instances"),
            ("/{model}/{id}", Id::Never, "`{id}`, which"),
            ("/{model}/{other}", Id::Must, "`{other}`"),
            ("/{model", Id::Never, "without"),
            ("/{model}{id}", Id::Must, "before `{id}`"),
            ("/{model}-{id}", Id::Must, "before `{id}`"),
            ("/{id}%2F{model}", Id::Must, "before `{model}`"),
            ("/{model}/../{id}", Id::Must, "`..`"),
            ("/{model}/%2E./{id}", Id::Must, "`..`"),
            ("/a b{model}", Id::Never, "' '"),
            ("/a#{model}", Id::Never, "'#'"),
            ("/{model}\\{id}", Id::Must, r"'\\'"),
        ] {
            let error = Template::parse(template, id).unwrap_err();
            assert!(error.contains(reason), "{template}: {error}");
        }
    }
}

//! Paths with `{model}` and `{id}` in them.

/// A path, ready to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Model,
    Id,
}

impl Template {
    /// Reads a path; `has_id`: it is that of one record. An error says what is wrong with it.
    pub(crate) fn parse(text: &str, has_id: bool) -> Result<Template, String> {
        if !text.starts_with('/') {
            return Err("does not begin with `/`".into());
        }
        if let Some(char) = text.chars().find(|char| !char.is_ascii_graphic() || *char == '#') {
            return Err(format!("contains {char:?}"));
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, behind) = behind.split_once('}').ok_or("has `{` without `}`")?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(match name {
                "model" => Part::Model,
                "id" if has_id => Part::Id,
                _ => return Err(format!("contains `{{{name}}}`, which has no meaning there")),
            });
            rest = behind;
        }
        parts.push(Part::Text(rest.to_owned()));
        if has_id && !parts.contains(&Part::Id) {
            return Err("lacks `{id}`".into());
        }
        Ok(Template(parts))
    }

    /// The path of a model's records, or of one.
    pub(crate) fn fill(&self, model: &str, id: &str) -> String {
        self.0.iter().fold(String::new(), |mut path, part| {
            match part {
                Part::Text(text) => path.push_str(text),
                Part::Model => escape(model, &mut path),
                Part::Id => escape(id, &mut path),
            }
            path
        })
    }
}

/// Only what means nothing in a URL stays as it is.
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_filled_in_and_escaped() {
        for (template, expected) in [
            ("/{model}/{id}", "/m-1/a%2F..%3Fx"),
            ("/x/{id}", "/x/a%2F..%3Fx"),
            ("/rows?table={model}&id={id}", "/rows?table=m-1&id=a%2F..%3Fx"),
        ] {
            assert_eq!(Template::parse(template, true).unwrap().fill("m-1", "a/..?x"), expected);
        }
        for (template, has_id, reason) in [
            ("", false, "begin"),
            ("{model}", false, "begin"),
            ("/{model}", true, "lacks"),
            ("/{id}", false, "`{id}`"),
            ("/{other}", true, "`{other}`"),
            ("/{model", false, "without"),
            ("/a b", false, "' '"),
            ("/a#b", false, "'#'"),
        ] {
            let error = Template::parse(template, has_id).unwrap_err();
            assert!(error.contains(reason), "{template}: {error}");
        }
    }
}

//! Maps claims to a role and models.

use serde_json::Value;

use super::jwt::shown;
use crate::claims::Claims;
use crate::role::Role;
use crate::scope::Scope;

/// The paths of the role and the models in the claims.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    role: String,
    models: Option<String>,
}

impl Mapping {
    /// Paths begin with `claims.`.
    pub(super) fn new(role: &str, models: Option<&str>) -> Result<Mapping, String> {
        let path = |setting: &str, path: &str| match path.strip_prefix("claims.") {
            Some(rest) if !rest.is_empty() && path.len() <= 256 => Ok(rest.to_owned()),
            _ => Err(format!(
                "`{setting}` is `{}`, expected the path of a claim such as `claims.{setting}`",
                path.escape_debug()
            )),
        };
        let models = models.map(|models| path("models", models)).transpose()?;
        Ok(Mapping { role: path("role", role)?, models })
    }

    /// The rights given by the claims. Missing claims give no rights.
    pub(super) fn apply(&self, claims: &Claims) -> Result<(Role, Scope), String> {
        let role = self.role(claims)?;
        let Some(path) = self.models.as_deref().filter(|_| role != Role::Admin) else { return Ok((role, Scope::ALL)) };
        let found = claims.get(path).ok_or_else(|| {
            format!("the claim `{path}` (`models`) is missing; let the issuer send a list of models, or `*` for all")
        })?;
        let names = names(found).ok_or_else(|| {
            format!("the claim `{path}` (`models`) is {}, expected a list of strings, or one string", shown(found))
        })?;
        let models = Scope::new(names).map_err(|reason| format!("the claim `{path}`: {reason}"))?;
        Ok((role, models))
    }

    fn role(&self, claims: &Claims) -> Result<Role, String> {
        let path = &self.role;
        let found = claims.get(path).ok_or_else(|| format!("the claim `{path}` (`role`) is missing"))?;
        let role = match found {
            Value::String(name) => name.parse().ok(),
            // Issuers list all roles of a subject, including those of other services: use the highest known one.
            Value::Array(all) => all.iter().filter_map(|name| name.as_str()?.parse().ok()).max(),
            _ => None,
        };
        role.ok_or_else(|| {
            format!("the claim `{path}` (`role`) is {}, expected `reader`, `writer` or `admin`", shown(found))
        })
    }
}

/// A list of strings, or one string with names between spaces or commas.
fn names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Array(all) => all.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
        Value::String(text) => {
            let names = text.split([' ', ',']).filter(|name| !name.is_empty());
            Some(names.map(str::to_owned).collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_become_a_role_and_models() {
        let mapping = Mapping::new("claims.role", Some("claims.models")).unwrap();
        let rows = [
            (r#"{"role":"reader","models":["order","a*"]}"#, Ok((Role::Reader, "order a*"))),
            (r#"{"role":"writer","models":"order a*,b"}"#, Ok((Role::Writer, "order a* b"))),
            (r#"{"role":"writer","models":"*"}"#, Ok((Role::Writer, "*"))),
            (r#"{"role":"admin"}"#, Ok((Role::Admin, "*"))),
            (r#"{"role":"admin","models":["order"]}"#, Ok((Role::Admin, "*"))),
            (r#"{"role":["offline_access","writer","reader",7],"models":"a"}"#, Ok((Role::Writer, "a"))),
            (r#"{"role":["offline_access"],"models":"a"}"#, Err("expected `reader`")),
            (r#"{"role":[],"models":"a"}"#, Err("expected `reader`")),
            (r#"{"role":"root","models":"a"}"#, Err("expected `reader`")),
            (r#"{"role":"Admin","models":"a"}"#, Err("expected `reader`")),
            (r#"{"role":"admin reader","models":"a"}"#, Err("expected `reader`")),
            (r#"{"role":{"admin":true},"models":"a"}"#, Err("expected `reader`")),
            (r#"{"models":"a"}"#, Err("is missing")),
            (r#"{"role":"reader"}"#, Err("is missing")),
            (r#"{"role":"reader","models":null}"#, Err("expected a list")),
            (r#"{"role":"reader","models":[]}"#, Err("empty")),
            (r#"{"role":"reader","models":" , "}"#, Err("empty")),
            (r#"{"role":"reader","models":["a",7]}"#, Err("expected a list")),
            (r#"{"role":"reader","models":["A"]}"#, Err("is not a model id or glob")),
        ];
        for (text, expected) in rows {
            match (mapping.apply(&Claims::parse(text).unwrap()), expected) {
                (Ok((role, scope)), Ok(wanted)) => {
                    assert_eq!((role, scope.patterns().join(" ").as_str()), wanted, "{text}")
                }
                (Err(reason), Err(part)) => assert!(reason.contains(part), "{text}: {reason}"),
                (result, _) => panic!("{text}: {result:?}"),
            }
        }
    }

    #[test]
    fn without_a_path_for_models_all_are_allowed() {
        let mapping = Mapping::new("claims.realm_access.roles", None).unwrap();
        let claims = Claims::parse(r#"{"realm_access":{"roles":["reader"]}}"#).unwrap();
        assert_eq!(mapping.apply(&claims), Ok((Role::Reader, Scope::ALL)));
    }

    #[test]
    fn paths_are_checked() {
        for path in ["", "role", "claims", "claims.", "Claims.role"] {
            assert!(Mapping::new(path, None).unwrap_err().contains("`role`"), "{path}");
            assert!(Mapping::new("claims.role", Some(path)).unwrap_err().contains("`models`"), "{path}");
        }
    }
}

//! Ids in paths and parameters, checked before anybody looks them up.

use super::problem::{Problem, Result};
use super::query::shorten;
use crate::catalog::{is_instance_id, is_model_id};
use crate::config::Phase;

pub(super) fn model(id: &str) -> Result<()> {
    match is_model_id(id) {
        true => Ok(()),
        false => Err(Problem::bad_request(format!(
            "`{}` is not a model id, expected `^[a-z0-9][a-z0-9_-]{{0,62}}$`",
            shorten(id)
        ))),
    }
}

pub(super) fn instance(id: &str) -> Result<()> {
    match is_instance_id(id) {
        true => Ok(()),
        false => Err(Problem::bad_request(format!(
            "`{}` is not an instance id, expected `^[A-Za-z0-9][A-Za-z0-9._~-]{{0,127}}$`",
            shorten(id)
        ))),
    }
}

pub(super) fn phase(name: &str) -> Result<Phase> {
    Phase::from_name(name).ok_or_else(|| {
        let phases = Phase::ALL.map(Phase::as_str).join(" ");
        Problem::bad_request(format!("`{}` is not a phase, expected one of {phases}", shorten(name)))
    })
}

pub(super) fn secret(name: &str) -> Result<()> {
    let bytes = name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.len() <= 128 && bytes.iter().all(plain) {
        return Ok(());
    }
    Err(Problem::bad_request(format!(
        "`{}` is not a valid secret name, expected `^[A-Za-z0-9][A-Za-z0-9._-]{{0,127}}$`",
        shorten(name)
    )))
}

/// Ids of errors are UUIDs.
pub(super) fn error(id: &str) -> Result<()> {
    match uuid::Uuid::try_parse(id) {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::bad_request(format!("`{}` is not the id of an error, expected a UUID", shorten(id)))),
    }
}

/// Ids of jobs are UUIDs, too.
pub(super) fn job(id: &str) -> Result<()> {
    match uuid::Uuid::try_parse(id) {
        Ok(_) => Ok(()),
        Err(_) => Err(Problem::bad_request(format!("`{}` is not the id of a job, expected a UUID", shorten(id)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(secret("mail-key.v1_A").is_ok() && secret(&"x".repeat(128)).is_ok());
        for bad in ["", ".a", "a/b", "é", "a b", &"x".repeat(129)] {
            assert!(secret(bad).is_err(), "{bad}");
        }
        assert_eq!(phase("preCreate").expect("a phase"), Phase::PreCreate);
        assert!(phase("precreate").is_err());
        assert!(error("01890a5d-ac96-774b-bcce-b302099a8057").is_ok() && error("1").is_err());
    }
}

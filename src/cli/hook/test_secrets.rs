//! The secrets of `snaphook hook test`: those that the command line gives, never the server's.

use crate::cli::failure::{Failure, Result};
use crate::cli::output;
use crate::drivers::{Vault, is_secret_name};
use crate::hooks::context::Asked;

/// `--secret NAME=VALUE`.
#[derive(Clone, Debug)]
pub(super) struct TestSecret {
    name: String,
    value: String,
}

/// For clap.
pub(super) fn test_secret(text: &str) -> std::result::Result<TestSecret, String> {
    let (name, value) = text.split_once('=').ok_or("no value, expected `NAME=VALUE`")?;
    match is_secret_name(name) {
        true => Ok(TestSecret { name: name.to_owned(), value: value.to_owned() }),
        false => Err(format!("`{name}` is not a valid secret name")),
    }
}

/// Puts them where the hook finds them.
pub(super) async fn store(vault: &Vault, secrets: &[TestSecret]) -> Result<()> {
    for TestSecret { name, value } in secrets {
        vault.put(name, value.as_bytes()).await.map_err(|error| Failure::new(error.to_string()))?;
    }
    Ok(())
}

/// Names the secrets that the hook may read and did not find.
pub(super) fn warn_of_missing(asked: &[Asked], secrets: &[TestSecret]) {
    let mut missing: Vec<&str> = asked
        .iter()
        .filter(|asked| asked.capability == "secret" && asked.granted)
        .map(|asked| asked.target.as_str())
        .filter(|name| !secrets.iter().any(|secret| secret.name == *name))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    for name in missing {
        output::warn(format!("a test does not have the server's secrets; `--secret {name}=VALUE` sets this one"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        let given = test_secret("mail-key=a=b").unwrap();
        assert_eq!((given.name.as_str(), given.value.as_str()), ("mail-key", "a=b"));
        assert_eq!(test_secret("empty=").unwrap().value, "");
        assert!(test_secret("mail-key").unwrap_err().contains("`NAME=VALUE`"));
        assert!(test_secret("../x=1").unwrap_err().contains("is not a valid secret name"));
    }
}

//! The capabilities: the operations that a hook may request from the host. Each has one module with its checks, its
//! host function and its tests.
//!
//! Each is a part of [`super::session::Session`]: it counts the call, checks the grant, records the use, and then acts
//! within a deadline and a size limit.

mod amend;
pub mod http;
mod log;
pub mod process;
mod read;
mod secret;
mod write;

use super::access::{AccessCode, AccessError};
use crate::config::format_size;

/// Longest name of a model, an instance, a secret, a program or a variable that a guest may pass. Nothing has a longer
/// name, and rejections are stored with the name.
const NAME_BYTES_MAX: usize = 1024;

/// Rejects an invalid name before it is used. `what` describes it, such as `the name of a model`.
fn check_name(what: &str, name: &str) -> Result<(), AccessError> {
    match name.len() > NAME_BYTES_MAX {
        true => Err(AccessError::new(
            AccessCode::Invalid,
            format!("{what} is {} bytes, at most {} are allowed", name.len(), format_size(NAME_BYTES_MAX)),
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::access::AccessCode;
    use super::super::session::ProcessCommand;
    use super::super::testing::{Bench, access_error};
    use crate::config::Phase;

    #[tokio::test]
    async fn long_names_are_refused_and_not_kept() {
        let session = Bench::new().session("invoice", Phase::PostCreate, "mail", "read = ['a']");
        let long = "x".repeat(2000);
        let command = |program: &str, name: &str| ProcessCommand {
            program: program.to_owned(),
            args: Vec::new(),
            stdin: Vec::new(),
            env: vec![(name.to_owned(), String::new())],
            timeout: None,
        };
        for error in [
            session.read_get(&long, "1").await.unwrap_err(),
            session.read_get("a", &long).await.unwrap_err(),
            session.read_query(&long, "{}").await.unwrap_err(),
            session.write_create(&long, None, "{}").await.unwrap_err(),
            session.write_create("a", Some(&long), "{}").await.unwrap_err(),
            session.write_update("a", &long, "{}", None).await.unwrap_err(),
            session.write_delete("a", &long, None).await.unwrap_err(),
            session.secret_get(&long).await.unwrap_err(),
            session.process_run(command(&long, "A")).await.unwrap_err(),
            session.process_run(command("/bin/true", &long)).await.unwrap_err(),
        ] {
            let error = access_error(error);
            assert_eq!(error.code, AccessCode::Invalid, "{}", error.message);
            assert!(error.message.ends_with("is 2000 bytes, at most 1 KiB are allowed"), "{}", error.message);
        }
        let (log, asked) = session.finish();
        assert!(log.is_empty() && asked.is_empty(), "{log:?} {asked:?}");
    }
}

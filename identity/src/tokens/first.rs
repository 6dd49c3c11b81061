//! The first token: created if there is none, and written to a file that only the server's owner can read.
//!
//! First the text is written to a draft file, then the token is created, and then the draft is renamed. So a crash
//! never leaves a token whose text is lost: the next start finds the draft and finishes, or starts over.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use snaphook_driver::files::make_folder;
use snaphook_driver::time::Millis;

use super::error::{TokenError, TokenErrorKind};
use super::request::TokenRequest;
use super::text::{self, TokenText};
use super::{Tokens, generate};
use crate::role::Role;

/// The name of the first token.
const NAME: &str = "admin";

impl Tokens {
    /// Creates an admin token if there is no token at all, and writes it to `path`; returns whether it did. Never
    /// overwrites anything: an existing file is an error.
    pub async fn ensure_admin(&self, path: &Path, now: Millis) -> Result<bool, TokenError> {
        self.shared.refresh().await?;
        let draft = draft(path);
        let drafted = std::fs::read_to_string(&draft).ok().is_some_and(|text| self.knows(text.trim_end().as_bytes()));
        if drafted {
            // An earlier start ended before the rename.
            publish(&draft, path).map_err(|error| failed(path, "written", &error))?;
            return Ok(true);
        }
        if !self.shared.live.load().entries.is_empty() {
            return remove(&draft).map(|()| false).map_err(|error| failed(&draft, "removed", &error));
        }
        if path.symlink_metadata().is_ok() {
            let message = format!(
                "`{}` exists, but there are no tokens: it belongs to another or an earlier secure storage; move it \
                 away, then the next start creates a new one",
                path.display()
            );
            return Err(TokenError::new(TokenErrorKind::Store, message));
        }
        let token = generate()?;
        let request = TokenRequest { name: NAME.to_owned(), role: Role::Admin, models: None, expires_at: None };
        let record = request.record(token.digest(), now)?;
        write(&draft, &token).map_err(|error| failed(&draft, "written", &error))?;
        if let Err(error) = self.shared.add_first(record).await {
            // If it was created nevertheless, the next start finds the draft.
            if error.kind() != TokenErrorKind::Exists {
                return Err(error);
            }
            remove(&draft).map_err(|error| failed(&draft, "removed", &error))?;
            return Ok(false);
        }
        publish(&draft, path).map_err(|error| failed(path, "written", &error))?;
        Ok(true)
    }

    fn knows(&self, token: &[u8]) -> bool {
        let digest = text::digest(token);
        text::is_token(token) && self.shared.live.load().entries.iter().any(|entry| entry.record.digest == digest)
    }
}

fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Writes a new draft in place of an earlier one.
fn write(draft: &Path, token: &TokenText) -> io::Result<()> {
    if let Some(folder) = draft.parent() {
        make_folder(folder)?;
    }
    remove(draft)?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(draft)?;
    writeln!(file, "{}", token.expose())?;
    file.sync_all()?;
    sync_folder(draft)
}

/// Renames the draft, unless the target exists.
fn publish(draft: &Path, path: &Path) -> io::Result<()> {
    let draft = tempfile::TempPath::try_from_path(draft)?;
    if let Err(error) = draft.persist_noclobber(path) {
        // The draft stays, because only it contains the text.
        let _ = error.path.keep();
        return Err(error.error);
    }
    sync_folder(path)
}

fn remove(draft: &Path) -> io::Result<()> {
    match std::fs::remove_file(draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> TokenError {
    let message = format!("the file of the first token, `{}`, cannot be {what}: {error}", path.display());
    TokenError::new(TokenErrorKind::Store, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snaphook_driver::{OpenContext, SecureStore};

    use super::*;

    async fn store() -> Arc<dyn SecureStore> {
        snaphook_memory::DRIVER.secure.unwrap()(OpenContext::new(serde_json::Map::new(), "")).await.unwrap()
    }

    fn token_in(path: &Path) -> String {
        let text = std::fs::read_to_string(path).unwrap();
        text.strip_suffix('\n').unwrap().to_owned()
    }

    #[tokio::test]
    async fn the_first_start_makes_one_and_the_next_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/admin.token");
        let store = store().await;
        let tokens = Tokens::open(Arc::clone(&store)).await.unwrap();
        assert!(tokens.ensure_admin(&path, 1).await.unwrap());
        let token = token_in(&path);
        let caller = tokens.verify(token.as_bytes(), 2).unwrap();
        assert!(caller.is_admin() && caller.actor.id == "admin");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(!draft(&path).exists());

        let again = Tokens::open(Arc::clone(&store)).await.unwrap();
        assert!(!again.ensure_admin(&path, 3).await.unwrap());
        assert_eq!(token_in(&path), token);
        // The file may be removed: the token stays, and no other one is created.
        std::fs::remove_file(&path).unwrap();
        assert!(!again.ensure_admin(&path, 3).await.unwrap());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_there_is_never_used_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.token");
        let tokens = Tokens::open(store().await).await.unwrap();
        tokens.ensure_admin(&path, 1).await.unwrap();
        let revoked = token_in(&path);
        tokens.revoke("admin").await.unwrap();
        let error = tokens.ensure_admin(&path, 2).await.unwrap_err();
        assert!(error.kind() == TokenErrorKind::Store && error.to_string().contains("move it away"), "{error}");
        assert!(tokens.verify(revoked.as_bytes(), 3).is_err());
        assert_eq!(token_in(&path), revoked);
        assert!(!draft(&path).exists());
        std::fs::remove_file(&path).unwrap();
        assert!(tokens.ensure_admin(&path, 4).await.unwrap());
        assert_ne!(token_in(&path), revoked);
    }

    #[tokio::test]
    async fn a_crash_at_any_step_leaves_no_token_without_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.token");
        // Stopped before the token was created: the draft is useless, and another token is created.
        let tokens = Tokens::open(store().await).await.unwrap();
        let lost = TokenText::generate().unwrap();
        write(&draft(&path), &lost).unwrap();
        assert!(tokens.ensure_admin(&path, 1).await.unwrap());
        assert_ne!(token_in(&path), lost.expose());
        // Stopped after the token was created, before the file was renamed.
        std::fs::rename(&path, draft(&path)).unwrap();
        assert!(tokens.ensure_admin(&path, 1).await.unwrap());
        assert!(tokens.verify(token_in(&path).as_bytes(), 2).is_ok());
        assert!(!draft(&path).exists());
        // The file name was taken in the meantime: the draft stays until the name is free.
        std::fs::rename(&path, draft(&path)).unwrap();
        std::fs::write(&path, "something else").unwrap();
        assert!(tokens.ensure_admin(&path, 1).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "something else");
        assert!(tokens.verify(token_in(&draft(&path)).as_bytes(), 2).is_ok());
    }

    #[tokio::test]
    async fn of_nodes_that_start_at_once_one_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = store().await;
        let nodes: Vec<Tokens> = futures_of(4, &store).await;
        let paths: Vec<PathBuf> = (0..4).map(|node| folder.path().join(format!("{node}/admin.token"))).collect();
        let (a, b, c, d) = tokio::join!(
            nodes[0].ensure_admin(&paths[0], 1),
            nodes[1].ensure_admin(&paths[1], 1),
            nodes[2].ensure_admin(&paths[2], 1),
            nodes[3].ensure_admin(&paths[3], 1),
        );
        let made: Vec<bool> = [a, b, c, d].map(Result::unwrap).to_vec();
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
        for (path, made) in paths.iter().zip(made) {
            assert_eq!(path.exists(), made);
            assert!(!draft(path).exists());
        }
    }

    async fn futures_of(count: usize, store: &Arc<dyn SecureStore>) -> Vec<Tokens> {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(Tokens::open(Arc::clone(store)).await.unwrap());
        }
        nodes
    }
}

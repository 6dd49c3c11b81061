//! Access to secrets: encrypts them with age before a driver gets them, and decrypts them for authorized code.
//!
//! A value is never in a message, a log or a `Debug` output; in memory it is wiped when it is dropped.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use age::secrecy::{ExposeSecret, SecretSlice};
use age::x25519::{Identity, Recipient};
use snaphook_driver::files::make_folder;
use snaphook_driver::limits::{is_reserved_name, is_secret_name};
use snaphook_driver::{DriverError, SecureStore};

/// Largest secret. A certificate chain with its key is some ten kilobytes.
pub const SECRET_BYTES_MAX: usize = 1 << 20;
/// How many decrypted values are cached: more than the hooks of one server use, but few enough that their memory does
/// not matter.
const CACHED_MAX: usize = 256;

/// Secrets by name, over a secure store.
pub struct Vault {
    store: Arc<dyn SecureStore>,
    identity: Identity,
    recipient: Recipient,
    /// Where the identity came from, for messages.
    key: String,
    /// Decrypted values by name, with their ciphertext: it differs each time a value is stored, by this node or
    /// another, so stale values are never returned.
    cache: Mutex<HashMap<String, (Vec<u8>, Secret)>>,
}

/// A secret's value. Cheap to clone, wiped with its last clone.
#[derive(Clone)]
pub struct Secret(Arc<SecretSlice<u8>>);

impl Secret {
    /// The value. The caller is responsible for where it goes.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a secret could not be read or stored.
#[derive(Debug)]
pub enum VaultError {
    /// The name is invalid.
    Name(String),
    /// The value is larger than [`SECRET_BYTES_MAX`].
    TooLarge(String),
    /// The private key is missing, invalid, or not the one for which the value was encrypted.
    Key(String),
    /// The stored ciphertext is damaged.
    Damaged(String),
    Store(DriverError),
}

impl fmt::Display for VaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VaultError::Name(message)
            | VaultError::TooLarge(message)
            | VaultError::Key(message)
            | VaultError::Damaged(message) => f.write_str(message),
            VaultError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for VaultError {}

impl From<DriverError> for VaultError {
    fn from(error: DriverError) -> Self {
        VaultError::Store(error)
    }
}

impl Vault {
    /// `private_key` is `file:PATH` (relative to `directory`; created if it does not exist and nothing was encrypted
    /// yet) or `env:NAME`. Fails if the key cannot decrypt the contents of the store.
    pub async fn open(store: Arc<dyn SecureStore>, private_key: &str, directory: &Path) -> Result<Vault, VaultError> {
        let names = secrets(&*store).await?;
        let identity = identity(private_key, directory, names.len())?;
        let recipient = identity.to_public();
        let vault = Vault { store, identity, recipient, key: private_key.to_owned(), cache: Mutex::default() };
        if let Some(name) = names.first() {
            vault.get(name).await?;
        }
        Ok(vault)
    }

    /// The value; `None` if there is no such secret.
    pub async fn get(&self, name: &str) -> Result<Option<Secret>, VaultError> {
        check_name(name)?;
        let Some(sealed) = self.store.get(name).await? else {
            self.cached(|cache| cache.remove(name));
            return Ok(None);
        };
        let known = self.cached(|cache| {
            cache.get(name).filter(|(bytes, _)| *bytes == sealed.bytes).map(|(_, secret)| secret.clone())
        });
        if let Some(secret) = known {
            return Ok(Some(secret));
        }
        let secret = decrypt(&self.identity, name, &sealed.bytes, &self.key)?;
        self.cached(|cache| {
            if cache.len() >= CACHED_MAX {
                cache.clear();
            }
            cache.insert(name.to_owned(), (sealed.bytes, secret.clone()))
        });
        Ok(Some(secret))
    }

    /// Keeps a value, encrypted, and gives its version.
    pub async fn put(&self, name: &str, value: &[u8]) -> Result<u64, VaultError> {
        check_name(name)?;
        if value.len() > SECRET_BYTES_MAX {
            let size = value.len();
            let message = format!("the secret `{name}` has {size} bytes, expected at most {SECRET_BYTES_MAX}");
            return Err(VaultError::TooLarge(message));
        }
        let sealed = age::encrypt(&self.recipient, value)
            .map_err(|error| VaultError::Key(format!("the secret `{name}` cannot be encrypted: {error}")))?;
        Ok(self.store.put(name, &sealed, None).await?)
    }

    /// Removes; `false` if there was nothing.
    pub async fn delete(&self, name: &str) -> Result<bool, VaultError> {
        check_name(name)?;
        self.cached(|cache| cache.remove(name));
        Ok(self.store.delete(name).await?)
    }

    /// All names, sorted.
    pub async fn list(&self) -> Result<Vec<String>, VaultError> {
        secrets(&*self.store).await
    }

    fn cached<T>(&self, work: impl FnOnce(&mut HashMap<String, (Vec<u8>, Secret)>) -> T) -> T {
        // A panic between two operations on a map leaves it as good as before.
        work(&mut self.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The names of all secrets, sorted. What the server keeps beside them is not encrypted, and nobody's secret.
async fn secrets(store: &dyn SecureStore) -> Result<Vec<String>, VaultError> {
    let mut names = store.list("").await?;
    names.retain(|name| !is_reserved_name(name));
    Ok(names)
}

fn check_name(name: &str) -> Result<(), VaultError> {
    if is_reserved_name(name) {
        return Err(VaultError::Name(format!("`{name}`: names that begin with `snaphook.` are the server's own")));
    }
    if is_secret_name(name) {
        return Ok(());
    }
    Err(VaultError::Name(format!(
        "`{name}` is not a valid secret name, expected 1 to 128 letters, digits, `.`, `_` and `-`, the first a letter \
         or digit"
    )))
}

/// The value of a secret outside of any store. The key must be there; none is made.
pub(super) fn unseal(private_key: &str, directory: &Path, name: &str, sealed: &[u8]) -> Result<Secret, VaultError> {
    if let Some(path) = private_key.strip_prefix("file:").map(|path| directory.join(path))
        && !path.exists()
    {
        return Err(VaultError::Key(format!("the private key `{}` does not exist", path.display())));
    }
    decrypt(&identity(private_key, directory, 1)?, name, sealed, private_key)
}

fn decrypt(identity: &Identity, name: &str, sealed: &[u8], key: &str) -> Result<Secret, VaultError> {
    let plain = age::decrypt(identity, sealed).map_err(|error| match error {
        age::DecryptError::NoMatchingKeys => VaultError::Key(format!(
            "the secret `{name}` was encrypted for another key than the one in `{key}`; restore that key, or set the \
             secret again"
        )),
        error => VaultError::Damaged(format!("the secret `{name}` cannot be decrypted: {error}; set it again")),
    })?;
    Ok(Secret(Arc::new(SecretSlice::from(plain))))
}

/// `secrets`: how many there are, encrypted for it.
fn identity(private_key: &str, directory: &Path, secrets: usize) -> Result<Identity, VaultError> {
    match private_key.split_once(':') {
        Some(("file", path)) => file_identity(&directory.join(path), secrets),
        Some(("env", name)) => env_identity(name),
        _ => Err(VaultError::Key("expected 'file:PATH' or 'env:NAME'".to_owned())),
    }
}

fn env_identity(name: &str) -> Result<Identity, VaultError> {
    match std::env::var(name) {
        Ok(text) => parse_identity(&text, &format!("the environment variable `{name}`")),
        Err(_) => Err(VaultError::Key(format!(
            "the environment variable `{name}` is not set, expected an age identity in it"
        ))),
    }
}

fn file_identity(path: &Path, secrets: usize) -> Result<Identity, VaultError> {
    let shown = path.display();
    match std::fs::read_to_string(path) {
        Ok(text) => {
            warn_if_others_can_read(path);
            parse_identity(&text, &format!("`{shown}`"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && secrets == 0 => make_identity(path)
            .map_err(|error| VaultError::Key(format!("no age identity can be written to `{shown}`: {error}"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(VaultError::Key(format!(
            "`{shown}` does not exist, but the storage contains secrets that only its key can read ({secrets}); \
             restore the file, or delete the secrets"
        ))),
        Err(error) => Err(VaultError::Key(format!("`{shown}` cannot be read: {error}"))),
    }
}

/// The first identity of a file as `age-keygen` writes it: comments, then the key.
fn parse_identity(text: &str, place: &str) -> Result<Identity, VaultError> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let identity = line.and_then(|line| line.parse::<Identity>().ok());
    identity.ok_or_else(|| VaultError::Key(format!("{place} contains no age identity, expected `AGE-SECRET-KEY-1…`")))
}

/// Writes a new identity, readable by the owner only, whole or not at all.
fn make_identity(path: &Path) -> std::io::Result<Identity> {
    let folder = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
    make_folder(&folder)?;
    let identity = Identity::generate();
    // `tempfile` makes it with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    writeln!(file, "# public key: {}", identity.to_public())?;
    writeln!(file, "{}", identity.to_string().expose_secret())?;
    file.as_file().sync_all()?;
    // Another process that came first keeps its key, and this one fails.
    file.persist_noclobber(path).map_err(|error| error.error)?;
    std::fs::File::open(&folder)?.sync_all()?;
    tracing::info!("created a private key for the secrets: `{}`; keep a copy of it in a safe place", path.display());
    Ok(identity)
}

#[cfg(unix)]
fn warn_if_others_can_read(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(
            "`{}` has mode {:03o}: others may read the private key, expected 600",
            path.display(),
            mode & 0o777
        );
    }
}

#[cfg(not(unix))]
fn warn_if_others_can_read(_path: &Path) {}

#[cfg(test)]
mod tests {
    use snaphook_driver::OpenContext;

    use super::*;

    async fn memory() -> Arc<dyn SecureStore> {
        let context = OpenContext::new(serde_json::Map::new(), "");
        snaphook_memory::DRIVER.secure.unwrap()(context).await.unwrap()
    }

    async fn open(store: &Arc<dyn SecureStore>, folder: &Path) -> Result<Vault, String> {
        Vault::open(Arc::clone(store), "file:keys/secret.key", folder).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let store = memory().await;
        let vault = open(&store, folder.path()).await.unwrap();
        assert_eq!(vault.get("a").await.unwrap().map(|_| ()), None);
        assert_eq!(vault.put("a", b"hunter2").await.unwrap(), 1);
        assert_eq!(vault.put("a", b"hunter3").await.unwrap(), 2);
        for _ in 0..2 {
            assert_eq!(vault.get("a").await.unwrap().unwrap().expose(), b"hunter3");
        }
        let sealed = store.get("a").await.unwrap().unwrap().bytes;
        assert!(sealed.starts_with(b"age-encryption.org/v1\n"));
        assert!(!sealed.windows(7).any(|window| window == b"hunter3"));
        assert_eq!(vault.list().await.unwrap(), ["a"]);

        // Another node deletes it and puts another value: the same version, and yet the new value.
        let other = open(&store, folder.path()).await.unwrap();
        assert!(other.delete("a").await.unwrap());
        other.put("a", b"1").await.unwrap();
        other.put("a", b"2").await.unwrap();
        assert_eq!(vault.get("a").await.unwrap().unwrap().expose(), b"2");
        assert!(!vault.delete("b").await.unwrap());
        assert!(vault.delete("a").await.unwrap());
        assert!(other.get("a").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn nothing_shows_a_value() {
        let folder = tempfile::tempdir().unwrap();
        let vault = open(&memory().await, folder.path()).await.unwrap();
        vault.put("a", b"hunter2").await.unwrap();
        let secret = vault.get("a").await.unwrap().unwrap();
        assert_eq!(format!("{secret:?} {vault:?}"), "Secret(…) Vault { key: \"file:keys/secret.key\", .. }");
    }

    #[tokio::test]
    async fn the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys/secret.key");
        let store = memory().await;
        open(&store, folder.path()).await.unwrap().put("a", b"hunter2").await.unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(open(&store, folder.path()).await.is_ok());

        std::fs::remove_file(&path).unwrap();
        assert_eq!(
            open(&store, folder.path()).await.unwrap_err(),
            format!(
                "`{}` does not exist, but the storage contains secrets that only its key can read (1); restore the \
                 file, or delete the secrets",
                path.display()
            )
        );
        std::fs::write(&path, Identity::generate().to_string().expose_secret()).unwrap();
        assert_eq!(
            open(&store, folder.path()).await.unwrap_err(),
            "the secret `a` was encrypted for another key than the one in `file:keys/secret.key`; restore that key, or \
             set the secret again"
        );
        std::fs::write(&path, "# empty\n").unwrap();
        assert_eq!(
            open(&store, folder.path()).await.unwrap_err(),
            format!("`{}` contains no age identity, expected `AGE-SECRET-KEY-1…`", path.display())
        );
        std::fs::write(&path, text).unwrap();
        assert!(open(&store, folder.path()).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = memory().await;
        let vault = open(&store, folder.path()).await.unwrap();
        for name in ["", ".a", "a b", "../a", "ä", &"a".repeat(129)] {
            assert!(matches!(vault.put(name, b"x").await, Err(VaultError::Name(_))), "{name}");
            assert!(matches!(vault.get(name).await, Err(VaultError::Name(_))), "{name}");
        }
        assert!(matches!(vault.put("a", &vec![0; SECRET_BYTES_MAX + 1]).await, Err(VaultError::TooLarge(_))));
        store.put("b", b"age-encryption.org/v1\nnot", None).await.unwrap();
        let error = vault.get("b").await.unwrap_err();
        assert!(matches!(error, VaultError::Damaged(_)), "{error}");
        let error = Vault::open(store, "env:SNAPHOOK_TEST_NO_SUCH", folder.path()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment variable `SNAPHOOK_TEST_NO_SUCH` is not set, expected an age identity in it"
        );
    }
}

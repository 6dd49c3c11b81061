//! The store of secrets.

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Value, cmd, from_redis_value};
use snaphook_driver::limits::is_secret_name;
use snaphook_driver::{Capabilities, DriverError, ErrorKind, PAYLOAD_BYTES_MAX, Result, Sealed, SecureStore};

use crate::change::{REMEMBERED_SECONDS, change};
use crate::keys::Keys;
use crate::pool::Pool;

/// Names in one response.
const PAGE: usize = 1000;

/// `KEYS`: the secret, the names, the record of this change. `ARGV`: the name, the bytes, the expected version or
/// nothing, how long the record is kept. Everything is read before anything is written, because a script is not rolled
/// back.
const PUT: &str = r"
if redis.call('EXISTS', KEYS[3]) == 1 then return 'void' end
redis.call('ZSCORE', KEYS[2], ARGV[1])
local found = redis.call('HGET', KEYS[1], 'version') or '0'
if ARGV[3] ~= '' and ARGV[3] ~= found then return 'found ' .. found end
local version = string.format('%.0f', tonumber(found) + 1)
redis.call('HSET', KEYS[1], 'version', version, 'bytes', ARGV[2])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('SET', KEYS[3], version, 'EX', ARGV[4])
return version
";

/// `KEYS`: as above. `ARGV`: the name, how long the record is kept.
const DELETE: &str = r"
if redis.call('EXISTS', KEYS[3]) == 1 then return 'void' end
redis.call('ZSCORE', KEYS[2], ARGV[1])
if not redis.call('HGET', KEYS[1], 'version') then return 'absent' end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SET', KEYS[3], 'deleted', 'EX', ARGV[2])
return 'deleted'
";

/// See the crate's documentation.
pub struct RedisSecureStore {
    pool: Arc<Pool>,
    keys: Keys,
}

impl RedisSecureStore {
    pub(crate) fn new(pool: Arc<Pool>, prefix: &str) -> RedisSecureStore {
        RedisSecureStore { pool, keys: Keys::new(prefix) }
    }

    fn corrupt(&self, operation: &'static str, key: &str) -> DriverError {
        let message = "a key contains data that this driver did not write, use a `prefix` that nobody else uses";
        self.pool.error(operation, ErrorKind::Corrupt, message).with("key", key)
    }

    fn unexpected(&self, operation: &'static str, outcome: &str) -> DriverError {
        let message = format!("the server's response is not what the driver's script returns: `{outcome:.40}`");
        self.pool.error(operation, ErrorKind::Unexpected, message)
    }
}

#[async_trait]
impl SecureStore for RedisSecureStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, shared: true, ..Capabilities::LEAST }
    }

    async fn health(&self) -> Result<()> {
        self.pool.check("health").await
    }

    async fn close(&self) -> Result<()> {
        // The connections are closed with the last store that shares them.
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Option<Sealed>> {
        check_name("get", name)?;
        let key = self.keys.secret(name);
        let mut command = cmd("HMGET");
        command.arg(&key).arg("version").arg("bytes");
        let value = self.pool.read("get", &command).await?;
        let corrupt = || self.corrupt("get", &key);
        let Value::Array(fields) = value else { return Err(corrupt()) };
        match <[Value; 2]>::try_from(fields) {
            Ok([Value::Nil, Value::Nil]) => Ok(None),
            Ok([Value::BulkString(version), Value::BulkString(bytes)]) => {
                let version = std::str::from_utf8(&version).ok().and_then(version_of).ok_or_else(corrupt)?;
                Ok(Some(Sealed { bytes, version }))
            }
            _ => Err(corrupt()),
        }
    }

    async fn put(&self, name: &str, bytes: &[u8], expected: Option<u64>) -> Result<u64> {
        check_name("put", name)?;
        if bytes.len() > PAYLOAD_BYTES_MAX {
            let message = format!("the secret has {} bytes, at most {PAYLOAD_BYTES_MAX} are allowed", bytes.len());
            return Err(DriverError::new(ErrorKind::Invalid, "put", message));
        }
        let (key, names) = (self.keys.secret(name), self.keys.names());
        let expected_text = expected.map_or(String::new(), |version| version.to_string());
        let script = |id: &str| {
            let mut command = cmd("EVAL");
            command.arg(PUT).arg(3).arg(&key).arg(&names).arg(self.keys.outcome(id));
            command.arg(name).arg(bytes).arg(&expected_text).arg(REMEMBERED_SECONDS);
            command
        };
        let outcome = change(&self.pool, "put", |id| self.keys.outcome(id), script).await?;
        if let Some(found) = outcome.strip_prefix("found ") {
            let message = format!("secret `{name}` has version {found}, expected {expected_text}");
            return Err(DriverError::new(ErrorKind::Conflict, "put", message));
        }
        version_of(&outcome).ok_or_else(|| self.unexpected("put", &outcome))
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        check_name("delete", name)?;
        let (key, names) = (self.keys.secret(name), self.keys.names());
        let script = |id: &str| {
            let mut command = cmd("EVAL");
            command.arg(DELETE).arg(3).arg(&key).arg(&names).arg(self.keys.outcome(id));
            command.arg(name).arg(REMEMBERED_SECONDS);
            command
        };
        let outcome = change(&self.pool, "delete", |id| self.keys.outcome(id), script).await?;
        match outcome.as_str() {
            "deleted" => Ok(true),
            "absent" => Ok(false),
            _ => Err(self.unexpected("delete", &outcome)),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>> {
        // All names are shorter and contain only these characters.
        if !prefix.is_empty() && !is_secret_name(prefix) {
            return Ok(Vec::new());
        }
        let key = self.keys.names();
        let end = if prefix.is_empty() { b"+".to_vec() } else { [b"[", prefix.as_bytes(), b"\xff"].concat() };
        let mut start = if prefix.is_empty() { "-".to_owned() } else { format!("[{prefix}") };
        let mut names: Vec<String> = Vec::new();
        loop {
            let mut command = cmd("ZRANGEBYLEX");
            command.arg(&key).arg(&start).arg(&end).arg("LIMIT").arg(0).arg(PAGE);
            let page = self.pool.read("list", &command).await?;
            let page: Vec<String> = from_redis_value(page).map_err(|_| self.corrupt("list", &key))?;
            let is_last = page.len() < PAGE;
            for name in page {
                // Whatever the server returns, each page continues after the last one.
                if !is_secret_name(&name) || names.last().is_some_and(|last| *last >= name) {
                    return Err(self.corrupt("list", &key));
                }
                names.push(name);
            }
            match names.last() {
                Some(last) if !is_last => start = format!("({last}"),
                _ => return Ok(names),
            }
        }
    }
}

/// Versions begin at 1.
fn version_of(text: &str) -> Option<u64> {
    text.parse().ok().filter(|version| *version > 0)
}

/// Checks a name, which becomes part of a key.
fn check_name(operation: &'static str, name: &str) -> Result<()> {
    if is_secret_name(name) {
        return Ok(());
    }
    let message = format!("expected a name of letters, digits, `.`, `_` and `-`, found `{}`", name.escape_debug());
    Err(DriverError::new(ErrorKind::Invalid, operation, message))
}

//! Compares a server's guarantees for stored data with the requirements of the connection.

use std::collections::HashMap;

use redis::{Value, cmd, from_redis_value};
use tokio::time::Instant;

use crate::durability::Durability;
use crate::failure::Failure;
use crate::link::Link;

/// The guarantees that were found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    /// The server does not reveal enough: says what could not be verified.
    Unverified(String),
    /// Less than the connection requires: found, expected, what to do.
    Weak(String),
}

/// Settings of a server by name, as far as it reveals them.
type Found = HashMap<&'static str, String>;

const APPENDONLY: &str = "appendonly";
const APPENDFSYNC: &str = "appendfsync";
/// `yes` suspends fsync while a snapshot or a rewrite of the log is running, whatever `appendfsync` says.
const NO_FSYNC_ON_REWRITE: &str = "no-appendfsync-on-rewrite";
/// Every policy except `noeviction` removes keys when memory is short: secrets, or the outcomes of changes, which
/// expire.
const MAXMEMORY_POLICY: &str = "maxmemory-policy";

/// Reads a server's settings.
pub(crate) async fn verify(link: &mut Link, durability: Durability, end: Instant) -> Result<Verdict, Failure> {
    if durability == Durability::Lazy {
        return Ok(Verdict::Kept);
    }
    Ok(judge(durability, &found(link, end).await?))
}

async fn found(link: &mut Link, end: Instant) -> Result<Found, Failure> {
    let mut found = Found::new();
    let known = [APPENDONLY, APPENDFSYNC, NO_FSYNC_ON_REWRITE, MAXMEMORY_POLICY];
    for pattern in ["*append*", MAXMEMORY_POLICY] {
        let settings = match link.call(cmd("CONFIG").arg("GET").arg(pattern), end).await {
            Ok(settings) => settings,
            Err(failure) if failure.forbids() => continue,
            Err(failure) => return Err(failure),
        };
        let settings: HashMap<String, String> = from_redis_value(settings).unwrap_or_default();
        found.extend(known.iter().filter_map(|name| Some((*name, settings.get(*name)?.clone()))));
    }
    // If the configuration is hidden, this still shows a part of it.
    for (section, line, name) in
        [("persistence", "aof_enabled", APPENDONLY), ("memory", "maxmemory_policy", MAXMEMORY_POLICY)]
    {
        if found.contains_key(name) {
            continue;
        }
        match link.call(cmd("INFO").arg(section), end).await {
            Ok(text) => found.extend(info(text, line).map(|value| (name, value))),
            Err(failure) if failure.forbids() => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(found)
}

/// A line of `INFO`; converts numbers to the words used in the configuration.
fn info(text: Value, name: &str) -> Option<String> {
    let text: String = from_redis_value(text).ok()?;
    let value = text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| *key == name))?.1.trim();
    Some(match value {
        "0" => "no".to_owned(),
        "1" => "yes".to_owned(),
        value => value.to_owned(),
    })
}

fn judge(durability: Durability, found: &Found) -> Verdict {
    let fsync: &[&str] = if durability == Durability::Fsync { &["always"] } else { &["everysec", "always"] };
    let expected: [(&str, &[&str]); 4] = [
        (APPENDONLY, &["yes"]),
        (APPENDFSYNC, fsync),
        (NO_FSYNC_ON_REWRITE, &["no"]),
        (MAXMEMORY_POLICY, &["noeviction"]),
    ];
    let (mut weak, mut unknown) = (Vec::new(), Vec::new());
    for (name, values) in expected {
        match found.get(name) {
            Some(value) if values.contains(&value.as_str()) => {}
            Some(value) => weak.push(format!("`{name}` is `{}`, expected `{}`", value.escape_debug(), values[0])),
            None => unknown.push(format!("`{name}` is `{}`", values[0])),
        }
    }
    if !weak.is_empty() {
        let message = format!(
            "the server is less durable than the connection's `durability` requires: {}; change the server's \
             configuration or `durability`",
            weak.join("; ")
        );
        return Verdict::Weak(message);
    }
    if !unknown.is_empty() {
        return Verdict::Unverified(format!("that {}", unknown.join(" and that ")));
    }
    Verdict::Kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(durability: Durability, settings: &[(&'static str, &str)]) -> Verdict {
        judge(durability, &settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    #[test]
    fn each_setting_counts() {
        let good = [
            (APPENDONLY, "yes"),
            (APPENDFSYNC, "always"),
            (NO_FSYNC_ON_REWRITE, "no"),
            (MAXMEMORY_POLICY, "noeviction"),
        ];
        assert_eq!(judged(Durability::Fsync, &good), Verdict::Kept);
        assert_eq!(judged(Durability::Everysec, &good), Verdict::Kept);
        for (index, bad) in ["no", "everysec", "yes", "volatile-lru"].into_iter().enumerate() {
            let mut settings = good;
            settings[index].1 = bad;
            let Verdict::Weak(message) = judged(Durability::Fsync, &settings) else { panic!("{bad} is refused") };
            assert!(
                message.contains(&format!("`{}` is `{bad}`, expected `{}`", good[index].0, good[index].1)),
                "{message}"
            );
            let is_kept = judged(Durability::Everysec, &settings) == Verdict::Kept;
            assert_eq!(is_kept, bad == "everysec", "{bad}");
            let unverified = judged(Durability::Fsync, &[&good[..index], &good[index + 1..]].concat());
            assert_eq!(unverified, Verdict::Unverified(format!("that `{}` is `{}`", good[index].0, good[index].1)));
        }
    }

    #[test]
    fn lines_of_info() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let persistence = "# Persistence\r\nloading:0\r\naof_enabled:1\r\n";
        assert_eq!(info(text(persistence), "aof_enabled").as_deref(), Some("yes"));
        assert_eq!(info(text("maxmemory_policy:allkeys-lru\r\n"), "maxmemory_policy").as_deref(), Some("allkeys-lru"));
        assert_eq!(info(text(persistence), "aof"), None);
        assert_eq!(info(Value::Nil, "aof"), None);
    }
}

//! Claims: the holders of keys, and keys that are taken and released without an event.
//!
//! Every change of claims first locks the row of the log, as appends do. So the claims by which an append is judged do
//! not change until it is written, and there are no deadlocks.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};
use snaphook_driver::judge::HolderRef;
use snaphook_driver::{Holder, Position, Result, Stream, StreamRef};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::row::signed;
use crate::connection::Database;
use crate::session::{Begin, Parameter};
use crate::sql::Sql;
use crate::text::{escape, instance, instance_of, unescape};

/// How many characters of a key the index contains.
const ORDERED: usize = 500;

pub(super) struct Claims {
    lock: Sql,
    /// The holders of keys, by digest.
    pub(super) holders: Sql,
    /// Takes keys, with the parameters of [`Taken`].
    pub(super) take: Sql,
    /// Releases keys, by digest.
    pub(super) give_back: Sql,
    forget: Sql,
    next: Sql,
}

impl Claims {
    pub(super) fn new(database: &Database) -> Claims {
        let sql = |text: &str, types: &[Type]| database.sql(text, types);
        Claims {
            lock: sql("SELECT head FROM @.log FOR UPDATE", &[]),
            holders: sql(
                "SELECT key, model, instance, position, expires, value FROM @.claims WHERE digest = ANY($1)",
                &[Type::BYTEA_ARRAY],
            ),
            take: sql(
                "INSERT INTO @.claims(digest, key, model, instance, position, expires, value)
                 SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (digest) DO UPDATE SET
                 model = excluded.model, instance = excluded.instance, position = excluded.position,
                 expires = excluded.expires, value = excluded.value",
                TAKEN_TYPES,
            ),
            give_back: sql("DELETE FROM @.claims WHERE digest = ANY($1)", &[Type::BYTEA_ARRAY]),
            forget: sql(
                "DELETE FROM @.claims WHERE digest IN (SELECT digest FROM @.claims
                 WHERE left(key, 500) >= $1 AND ($2::text IS NULL OR left(key, 500) < $2) AND starts_with(key, $3)
                 ORDER BY left(key, 500) LIMIT $4)",
                &[Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8],
            ),
            next: sql(
                "SELECT key FROM @.claims WHERE left(key, 500) >= $1 AND key >= $2 ORDER BY left(key, 500), key LIMIT 1",
                &[Type::TEXT, Type::TEXT],
            ),
        }
    }

    /// See [`snaphook_driver::EventStore::holder`].
    pub(super) async fn holder(&self, database: &Database, key: &str) -> Result<Option<Holder>> {
        let rows = database.session("holder").await?.query(&self.holders, &[&vec![digest(key)]]).await?;
        Ok(rows.first().map(|row| holder(row).1))
    }

    /// See [`snaphook_driver::EventStore::reserve`].
    pub(super) async fn reserve(&self, database: &Database, keys: &[(String, Stream)]) -> Result<Vec<(usize, Holder)>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut session = database.session("reserve").await?;
        // Durable: the append that relies on the reservation may come after an unnoticed crash of the server.
        session.begin(Begin::DURABLE).await?;
        let head = session.one(&self.lock, &[]).await?.get::<_, i64>(0) as Position;
        let digests: Vec<[u8; 32]> = keys.iter().map(|(key, _)| digest_array(key)).collect();
        let digests: Vec<&[u8]> = digests.iter().map(<[u8; 32]>::as_slice).collect();
        let held: BTreeMap<String, Holder> =
            session.query(&self.holders, &[&digests]).await?.iter().map(holder).collect();
        let mut taken = Taken::default();
        let mut mine: BTreeMap<&str, &Stream> = BTreeMap::new();
        let mut refused = Vec::new();
        for (index, (key, stream)) in keys.iter().enumerate() {
            match (held.get(key), mine.get(key.as_str())) {
                (Some(holder), _) if holder.stream != *stream => refused.push((index, holder.clone())),
                (_, Some(first)) if *first != stream => refused.push((index, Holder::new((*first).clone(), head))),
                (_, Some(_)) => {}
                (_, None) => {
                    mine.insert(key, stream);
                    let stream = StreamRef::from(stream);
                    taken.add(key, HolderRef { stream, position: head, expires: None, value: None });
                }
            }
        }
        session.execute(&self.take, &taken.parameters()).await?;
        session.commit().await?;
        Ok(refused)
    }

    /// See [`snaphook_driver::EventStore::forget_claims`].
    pub(super) async fn forget(&self, database: &Database, prefix: &str, limit: u32) -> Result<u64> {
        let prefix = escape(prefix);
        let (first, last) = (ordered(&prefix), after_prefix(ordered(&prefix)));
        let mut session = database.session("forget_claims").await?;
        session.begin(Begin::LAZY).await?;
        session.one(&self.lock, &[]).await?;
        let count = session.execute(&self.forget, &[&first, &last, &prefix, &i64::from(limit)]).await?;
        session.commit().await?;
        Ok(count)
    }

    /// See [`snaphook_driver::EventStore::next_claim`].
    pub(super) async fn next(&self, database: &Database, from: &str) -> Result<Option<String>> {
        let from = escape(from);
        let rows = database.session("next_claim").await?.query(&self.next, &[&ordered(&from), &from]).await?;
        Ok(rows.first().map(|row| unescape(row.get(0))))
    }
}

/// Claims to write, by column.
#[derive(Default)]
pub(super) struct Taken<'a> {
    digest: Vec<Vec<u8>>,
    key: Vec<Cow<'a, str>>,
    model: Vec<Cow<'a, str>>,
    instance: Vec<Cow<'a, str>>,
    position: Vec<i64>,
    expires: Vec<Option<i64>>,
    value: Vec<Option<Cow<'a, str>>>,
}

const TAKEN_TYPES: &[Type] = &[
    Type::BYTEA_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
];

impl<'a> Taken<'a> {
    pub(super) fn add(&mut self, key: &'a str, holder: HolderRef<'a>) {
        self.digest.push(digest(key));
        self.key.push(escape(key));
        self.model.push(escape(holder.stream.model));
        self.instance.push(instance(holder.stream));
        self.position.push(signed(holder.position));
        self.expires.push(holder.expires);
        self.value.push(holder.value.map(escape));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.digest.is_empty()
    }

    pub(super) fn parameters(&self) -> [Parameter<'_>; 7] {
        [&self.digest, &self.key, &self.model, &self.instance, &self.position, &self.expires, &self.value]
    }
}

/// A row of [`Claims::holders`].
pub(super) fn holder(row: &Row) -> (String, Holder) {
    let stream = Stream { model: unescape(row.get(1)), instance: instance_of(row.get(2)) };
    let value = row.get::<_, Option<String>>(5).map(unescape);
    let holder = Holder { stream, position: row.get::<_, i64>(3) as Position, expires: row.get(4), value };
    (unescape(row.get(0)), holder)
}

/// The digest that identifies a key.
pub(super) fn digest(key: &str) -> Vec<u8> {
    digest_array(key).to_vec()
}

fn digest_array(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The part of a key that the index contains, like SQL's `left`.
fn ordered(key: &str) -> &str {
    key.char_indices().nth(ORDERED).map_or(key, |(end, _)| &key[..end])
}

/// The first text after all texts with this prefix; `None` if there is none.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // Skips the surrogates, which are not characters.
        let next = (u32::from(last) + 1..=0x11_0000).find_map(|code| match code {
            0x11_0000 => Some(None),
            code => char::from_u32(code).map(Some),
        });
        if let Some(Some(next)) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_have_an_end() {
        for (prefix, end) in [
            ("a", Some("b")),
            ("", None),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            ("\u{d7ff}", Some("\u{e000}")),
            ("\u{7f}", Some("\u{80}")),
        ] {
            assert_eq!(after_prefix(prefix).as_deref(), end, "{prefix:?}");
        }
        let long = "é".repeat(ORDERED);
        assert_eq!(ordered(&format!("{long}x")), long);
        assert_eq!(ordered("short"), "short");
    }
}

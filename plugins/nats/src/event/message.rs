//! The messages of the log.
//!
//! A message is a frame around one change. Every version of this driver can read the frame: it contains the writer, the
//! version of the rules, and the location of the content. The content is the change; a large one is stored in parts.

use bytes::Bytes;
use prost::Message as _;
use snaphook_driver::time::Millis;
use snaphook_driver::wire::{decode, proto};
use snaphook_driver::{Append, LogRecord, Stream};
use snaphook_sqlite::replica::LogChange;

use crate::parts::Reference;

/// How far a node's clock may be ahead of the server's, in milliseconds, before its times are limited.
const CLOCKS_DIFFER: Millis = 5_000;

/// The format of contents. Increased when older versions of the driver would misread them.
pub(crate) const FORMAT: u32 = 1;

/// Contents up to this size are stored in their message.
pub(crate) const INLINE_BYTES: usize = 128 * 1024;

/// A message of the log.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Frame {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    /// The rules of the judge, [`snaphook_driver::judge::VERSION`].
    #[prost(uint32, tag = "2")]
    pub(crate) rules: u32,
    /// The node's name, for people.
    #[prost(string, tag = "3")]
    pub(crate) node: String,
    /// A sender of an opened node; unique.
    #[prost(string, tag = "4")]
    pub(crate) writer: String,
    /// Increases with each change of the writer.
    #[prost(uint64, tag = "5")]
    pub(crate) counter: u64,
    #[prost(oneof = "Content", tags = "6, 7")]
    pub(crate) content: Option<Content>,
}

/// The location of a change.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Content {
    #[prost(bytes = "bytes", tag = "6")]
    Here(Bytes),
    #[prost(message, tag = "7")]
    Parts(Reference),
}

/// A change as it is written.
#[derive(Clone, PartialEq, prost::Message)]
struct Written {
    #[prost(oneof = "What", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(message, tag = "1")]
    Nothing(Empty),
    /// The log's identity.
    #[prost(string, tag = "2")]
    Begin(String),
    #[prost(message, tag = "3")]
    Append(Appends),
    #[prost(message, tag = "4")]
    Reserve(Keys),
    #[prost(message, tag = "5")]
    Forget(Prefix),
    #[prost(message, tag = "6")]
    Blob(proto::BlobRecord),
    #[prost(message, tag = "7")]
    Import(Records),
    #[prost(message, tag = "8")]
    FinishImport(Empty),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct Appends {
    #[prost(message, repeated, tag = "1")]
    appends: Vec<proto::Append>,
    #[prost(bool, tag = "2")]
    atomic: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Keys {
    #[prost(message, repeated, tag = "1")]
    keys: Vec<Key>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Key {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    stream: Option<proto::Stream>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Prefix {
    #[prost(string, tag = "1")]
    prefix: String,
    #[prost(uint32, tag = "2")]
    limit: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Records {
    #[prost(message, repeated, tag = "1")]
    records: Vec<proto::LogRecord>,
}

/// A change that was read.
#[derive(Debug)]
pub(crate) enum Operation {
    Nothing,
    Begin(String),
    Append { batch: Vec<Append>, atomic: bool },
    Reserve(Vec<(String, Stream)>),
    Forget { prefix: String, limit: u32 },
    Blob { sha256: String, bytes: Vec<u8> },
    Import(Vec<LogRecord>),
    FinishImport,
}

impl Operation {
    /// Limits the times of events to the time at which the server received their message, plus a margin: times never
    /// decrease in a log, so one node with a clock that is ahead would determine the times of all later events. The
    /// server's time is in the stream, so every node computes the same limit.
    pub(crate) fn bound_times(&mut self, published: Millis) {
        if let Operation::Append { batch, .. } = self {
            let latest = published.saturating_add(CLOCKS_DIFFER);
            batch.iter_mut().for_each(|append| append.event.time = append.event.time.min(latest));
        }
    }
}

/// Encodes a change as the content of a message.
pub(crate) fn encode(change: LogChange<'_>) -> Bytes {
    let what = match change {
        LogChange::Nothing => What::Nothing(Empty {}),
        LogChange::Begin { identity } => What::Begin(identity.to_owned()),
        LogChange::Append { batch, atomic } => {
            What::Append(Appends { appends: batch.iter().map(Into::into).collect(), atomic })
        }
        LogChange::Reserve { keys } => What::Reserve(Keys {
            keys: keys.iter().map(|(key, stream)| Key { key: key.clone(), stream: Some(stream.into()) }).collect(),
        }),
        LogChange::Forget { prefix, limit } => What::Forget(Prefix { prefix: prefix.to_owned(), limit }),
        LogChange::Blob { sha256, bytes } => {
            What::Blob(proto::BlobRecord { sha256: sha256.to_owned(), bytes: bytes.to_owned() })
        }
        LogChange::Import { records } => What::Import(Records { records: records.iter().map(Into::into).collect() }),
        LogChange::FinishImport => What::FinishImport(Empty {}),
    };
    Written { what: Some(what) }.encode_to_vec().into()
}

impl Operation {
    /// Decodes the change in a content. An error says what is wrong with it.
    pub(crate) fn decode(content: &[u8]) -> Result<Operation, String> {
        fn each<A, B: TryFrom<A>>(items: Vec<A>) -> Result<Vec<B>, String>
        where
            B::Error: ToString,
        {
            items.into_iter().map(|item| B::try_from(item).map_err(|error| error.to_string())).collect()
        }
        let written: Written = decode(content).map_err(|error| error.to_string())?;
        Ok(match written.what.ok_or("it contains no known change")? {
            What::Nothing(_) => Operation::Nothing,
            What::Begin(identity) => Operation::Begin(identity),
            What::Append(Appends { appends, atomic }) => Operation::Append { batch: each(appends)?, atomic },
            What::Reserve(Keys { keys }) => Operation::Reserve(
                keys.into_iter()
                    .map(|key| Ok((key.key, key.stream.ok_or("a key without a stream")?.into())))
                    .collect::<Result<_, String>>()?,
            ),
            What::Forget(Prefix { prefix, limit }) => Operation::Forget { prefix, limit },
            What::Blob(proto::BlobRecord { sha256, bytes }) => Operation::Blob { sha256, bytes },
            What::Import(Records { records }) => Operation::Import(each(records)?),
            What::FinishImport(_) => Operation::FinishImport,
        })
    }

    pub(crate) fn change(&self) -> LogChange<'_> {
        match self {
            Operation::Nothing => LogChange::Nothing,
            Operation::Begin(identity) => LogChange::Begin { identity },
            Operation::Append { batch, atomic } => LogChange::Append { batch, atomic: *atomic },
            Operation::Reserve(keys) => LogChange::Reserve { keys },
            Operation::Forget { prefix, limit } => LogChange::Forget { prefix, limit: *limit },
            Operation::Blob { sha256, bytes } => LogChange::Blob { sha256, bytes },
            Operation::Import(records) => LogChange::Import { records },
            Operation::FinishImport => LogChange::FinishImport,
        }
    }
}

//! Streams: creates missing ones, and rejects those with the wrong configuration.

use std::time::Duration;

use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream};
use snaphook_driver::{DriverError, ErrorKind, Result};
use tokio::time::Instant;

use crate::config::Durability;
use crate::connection::Link;
use crate::fault::unavailable;

/// How long a starting cluster may take to create a stream.
const MAKE_TIME: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(200);

/// The server has no such stream.
const NOT_FOUND: u64 = 10059;

/// There is a stream of that name with another configuration.
const EXISTS: u64 = 10058;

/// The purpose of a stream, which determines the rest of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing is ever removed.
    Log,
    /// Parts of values that can be removed.
    Parts,
    /// The last value of each key.
    Bucket,
    /// The same, with an expiry after the write.
    Leases(Duration),
}

/// The configuration that a stream must have.
pub(crate) fn config(link: &Link, name: &str, subject: &str, kind: Kind) -> Config {
    let base = Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        num_replicas: link.config.replicas(),
        max_messages: -1,
        max_bytes: -1,
        max_message_size: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        // Reads must return the last written value, which only the leader knows.
        allow_direct: false,
        ..Config::default()
    };
    match kind {
        Kind::Log => Config { deny_delete: true, deny_purge: true, ..base },
        Kind::Parts => base,
        Kind::Bucket => Config { max_messages_per_subject: 1, deny_delete: true, allow_rollup: true, ..base },
        Kind::Leases(age) => Config { max_messages_per_subject: 1, max_age: age, ..base },
    }
}

/// Opens the stream; creates it if it is missing, and rejects it if its configuration differs.
pub(crate) async fn ensure(link: &Link, wanted: &Config) -> Result<Stream<()>> {
    let info = info_or_make(link, wanted).await?;
    check(&info.config, wanted, link.config.durability)?;
    handle(link, &wanted.name).await
}

/// A handle of a stream, without a request to the server.
pub(crate) async fn handle(link: &Link, name: &str) -> Result<Stream<()>> {
    link.jetstream.get_stream_no_info(name).await.map_err(unavailable("open", "the stream"))
}

async fn info_or_make(link: &Link, wanted: &Config) -> Result<Info> {
    let deadline = Instant::now() + MAKE_TIME;
    let mut request = "INFO";
    loop {
        let subject = format!("STREAM.{request}.{}", wanted.name);
        let response: Result<Response<Info>, _> = match request {
            "INFO" => link.jetstream.request(subject, &()).await,
            _ => link.jetstream.request(subject, wanted).await,
        };
        let fault = match response {
            Ok(Response::Ok(info)) => return Ok(info),
            Ok(Response::Err { error }) => {
                let code = error.error_code().0;
                if request == "INFO" && code == NOT_FOUND {
                    request = "CREATE";
                    continue;
                }
                if code == EXISTS {
                    request = "INFO";
                    continue;
                }
                let is_wrong = error.code() == 400;
                let message = "the server cannot create the stream";
                let fault = DriverError::new(ErrorKind::Unavailable, "open", message)
                    .with("stream", &wanted.name)
                    .with("code", code)
                    .because(error);
                if is_wrong {
                    return Err(fault.as_kind(ErrorKind::Config));
                }
                fault
            }
            Err(error) => unavailable("open", "JetStream")(error).with("stream", &wanted.name),
        };
        if Instant::now() >= deadline {
            return Err(fault);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Checks everything on which the stored data depends.
fn check(found: &Config, wanted: &Config, durability: Durability) -> Result<()> {
    let text = |config: &Config| {
        vec![
            ("subjects", format!("{:?}", config.subjects)),
            ("storage", format!("{:?}", config.storage)),
            ("retention", format!("{:?}", config.retention)),
            ("discard", format!("{:?}", config.discard)),
            ("replicas", config.num_replicas.to_string()),
            ("deny_delete", config.deny_delete.to_string()),
            ("deny_purge", config.deny_purge.to_string()),
            ("max_age", format!("{:?}", config.max_age)),
            ("max_msgs", unlimited(config.max_messages)),
            ("max_bytes", unlimited(config.max_bytes)),
            ("max_msg_size", unlimited(config.max_message_size.into())),
            ("max_msgs_per_subject", unlimited(config.max_messages_per_subject)),
            ("no_ack", config.no_ack.to_string()),
            ("sealed", config.sealed.to_string()),
            ("mirror", config.mirror.is_some().to_string()),
            ("sources", config.sources.as_ref().is_some_and(|sources| !sources.is_empty()).to_string()),
            ("subject_transform", config.subject_transform.is_some().to_string()),
            // Acknowledgements before the write; only allowed if no more durability is requested.
            (
                "persist_mode",
                match durability {
                    Durability::Lazy => String::new(),
                    _ => format!("{:?}", config.persist_mode.unwrap_or_default()),
                },
            ),
        ]
    };
    for ((what, found), (_, expected)) in text(found).into_iter().zip(text(wanted)) {
        if found != expected {
            return Err(DriverError::new(
                ErrorKind::Config,
                "open",
                format!("the stream has `{what}` {found}, expected {expected}; change it, or set another `name`"),
            )
            .with("stream", &wanted.name));
        }
    }
    Ok(())
}

/// Formats a limit; 0 or less means unlimited.
fn unlimited(limit: i64) -> String {
    if limit <= 0 { "unlimited".to_owned() } else { limit.to_string() }
}

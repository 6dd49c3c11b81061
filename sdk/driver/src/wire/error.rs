//! Faults of stores as messages.

use prost::Message as _;

use super::proto;
use crate::error::{DriverError, ErrorKind};

/// The bytes of an error.
pub fn encode_error(error: &DriverError) -> Vec<u8> {
    proto::Error::from(error).encode_to_vec()
}

/// The error with these bytes. Invalid bytes are an error themselves.
pub fn decode_error(bytes: &[u8]) -> DriverError {
    match proto::Error::decode(bytes) {
        Ok(error) => error.into(),
        Err(error) => {
            DriverError::new(ErrorKind::Unexpected, "call", "the driver failed, and its error cannot be read")
                .because(error)
        }
    }
}

const KINDS: [(ErrorKind, proto::ErrorKind); 11] = [
    (ErrorKind::Config, proto::ErrorKind::Config),
    (ErrorKind::Unavailable, proto::ErrorKind::Unavailable),
    (ErrorKind::Full, proto::ErrorKind::Full),
    (ErrorKind::Corrupt, proto::ErrorKind::Corrupt),
    (ErrorKind::Unsupported, proto::ErrorKind::Unsupported),
    (ErrorKind::Conflict, proto::ErrorKind::Conflict),
    (ErrorKind::Invalid, proto::ErrorKind::Invalid),
    (ErrorKind::Uncertain, proto::ErrorKind::Uncertain),
    (ErrorKind::TooComplex, proto::ErrorKind::TooComplex),
    (ErrorKind::Overloaded, proto::ErrorKind::Overloaded),
    (ErrorKind::Unexpected, proto::ErrorKind::Unexpected),
];

impl From<&DriverError> for proto::Error {
    fn from(error: &DriverError) -> Self {
        let kind = KINDS.iter().find(|(kind, _)| *kind == error.kind());
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        // The text of many errors already includes their cause.
        causes.dedup_by(|cause, before| before.contains(cause.as_str()));
        proto::Error {
            kind: kind.map_or(proto::ErrorKind::Unexpected, |(_, kind)| *kind).into(),
            operation: error.operation().to_owned(),
            message: error.message().to_owned(),
            context: error
                .context()
                .map(|(name, value)| proto::Fact { name: name.to_owned(), value: value.to_owned() })
                .collect(),
            cause: (!causes.is_empty()).then(|| causes.join(": ")),
            retry: Some(error.is_temporary()),
        }
    }
}

impl From<proto::Error> for DriverError {
    fn from(error: proto::Error) -> Self {
        let kind = KINDS.iter().find(|(_, kind)| *kind == error.kind());
        let kind = kind.map_or(ErrorKind::Unexpected, |(kind, _)| *kind);
        let mut read = DriverError::new(kind, error.operation, error.message);
        for proto::Fact { name, value } in error.context {
            read = read.with(name, value);
        }
        if let Some(cause) = error.cause {
            read = read.because(cause);
        }
        match error.retry {
            Some(retry) => read.temporary(retry),
            None => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_the_same_on_both_sides() {
        for (kind, _) in KINDS {
            let cause = std::io::Error::other("the cable is out");
            let error = DriverError::new(kind, "append", "the disk is gone").with("path", "a/b").because(cause);
            let read = decode_error(&encode_error(&error));
            assert_eq!((read.kind(), read.is_temporary()), (kind, error.is_temporary()));
            assert_eq!(read.to_string(), error.to_string());
            assert!(decode_error(&encode_error(&error.temporary(true))).is_temporary());
        }
        assert_eq!(decode_error(&[0xff]).kind(), ErrorKind::Unexpected);
    }
}

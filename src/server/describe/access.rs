//! Descriptions of the operations of `/tokens` and `/secrets`.

use crate::server::openapi::{Operation, Tag};
use crate::server::problem::ProblemType;

pub(in crate::server) fn list_tokens() -> Operation {
    Operation::new("listTokens", Tag::Access, "List the tokens").returns(
        200,
        "All of them, without the tokens themselves.",
        &["TokenPage"],
    )
}

pub(in crate::server) fn create_token() -> Operation {
    Operation::new("createToken", Tag::Access, "Create a token")
        .takes(&["NewToken"])
        .returns(201, "The token: it is shown this once.", &["MadeToken"])
        .headers(&["Location"])
        .problems(&[ProblemType::Exists])
}

pub(in crate::server) fn revoke_token() -> Operation {
    Operation::new("revokeToken", Tag::Access, "Revoke a token")
        .parameters(&["tokenName"])
        .returns_nothing(204, "The token is no longer valid.")
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn list_secrets() -> Operation {
    Operation::new("listSecrets", Tag::Access, "List the names of the secrets").returns(
        200,
        "Their names.",
        &["SecretPage"],
    )
}

pub(in crate::server) fn put_secret() -> Operation {
    Operation::new("putSecret", Tag::Access, "Set a secret")
        .details("The body is the value, byte by byte. It cannot be read back.")
        .parameters(&["secretName"])
        .takes_type("application/octet-stream", &[])
        .returns_nothing(204, "It is kept, encrypted.")
        .problems(&[ProblemType::Invalid])
}

pub(in crate::server) fn delete_secret() -> Operation {
    Operation::new("deleteSecret", Tag::Access, "Delete a secret")
        .parameters(&["secretName"])
        .returns_nothing(204, "It is gone.")
        .problems(&[ProblemType::NotFound])
}

//! Descriptions of the operations of `/errors` and `/jobs`.

use crate::server::openapi::{Operation, Tag};
use crate::server::problem::ProblemType;

pub(in crate::server) fn list() -> Operation {
    Operation::new("listErrors", Tag::Errors, "List post hooks that failed")
        .parameters(&["errorModel", "errorHook", "errorAfter", "limit"])
        .returns(200, "A page of errors.", &["ErrorPage"])
        .problems(&[ProblemType::NotSupported])
}

pub(in crate::server) fn get() -> Operation {
    Operation::new("getError", Tag::Errors, "Read an error")
        .parameters(&["errorId"])
        .returns(200, "The error, with the event and the log.", &["Error"])
        .problems(&[ProblemType::NotFound, ProblemType::NotSupported])
}

pub(in crate::server) fn delete() -> Operation {
    Operation::new("deleteError", Tag::Errors, "Forget an error")
        .parameters(&["errorId"])
        .returns_nothing(204, "It is gone.")
        .problems(&[ProblemType::NotFound, ProblemType::NotSupported])
}

pub(in crate::server) fn retry() -> Operation {
    Operation::new("retryError", Tag::Errors, "Run a failed hook again")
        .details("With the hook as it is now.")
        .parameters(&["errorId", "dryRun"])
        .returns(200, "Whether it ran through now.", &["Retried"])
        .problems(&[ProblemType::NotFound, ProblemType::NotSupported, ProblemType::Conflict])
}

pub(in crate::server) fn retry_all() -> Operation {
    Operation::new("retryErrors", Tag::Errors, "Run failed hooks again")
        .details("All that match, in a job. `dry-run=true` only counts them.")
        .parameters(&["errorModel", "errorHook", "dryRun"])
        .returns(202, "The job runs.", &["JobStarted"])
        .headers(&["Location"])
        .returns(200, "With `dry-run=true`: how many match.", &["Retried"])
        .problems(&[ProblemType::NotSupported])
}

pub(in crate::server) fn job() -> Operation {
    Operation::new("getJob", Tag::Errors, "Read how far a job is")
        .parameters(&["jobId"])
        .returns(200, "The job.", &["Job"])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn cancel_job() -> Operation {
    Operation::new("cancelJob", Tag::Errors, "Cancel a job")
        .parameters(&["jobId"])
        .returns_nothing(204, "It ends.")
        .problems(&[ProblemType::NotFound])
}

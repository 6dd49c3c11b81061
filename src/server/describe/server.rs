//! Descriptions of the operations on the server itself: health, nodes, backups, documents.

use crate::server::openapi::{Operation, Tag};
use crate::server::problem::ProblemType;

pub(in crate::server) fn server() -> Operation {
    Operation::new("getServer", Tag::Server, "Read which server this is").returns(
        200,
        "Its version, its log and where its data is.",
        &["Server"],
    )
}

pub(in crate::server) fn nodes() -> Operation {
    Operation::new("listNodes", Tag::Server, "List the nodes that share the log").returns(
        200,
        "The nodes.",
        &["NodePage"],
    )
}

pub(in crate::server) fn plugins() -> Operation {
    Operation::new("listPlugins", Tag::Server, "List the libraries with drivers").returns(
        200,
        "The libraries.",
        &["PluginPage"],
    )
}

pub(in crate::server) fn backup() -> Operation {
    Operation::new("backup", Tag::Server, "Create a backup")
        .details("Everything that cannot be rebuilt, as one file for `snaphook restore`. Secrets are encrypted in it.")
        .returns_nothing(200, "The file.")
        .or_type("application/octet-stream", &[])
        .problems(&[ProblemType::Conflict, ProblemType::NotSupported])
}

pub(in crate::server) fn rebuild_progress() -> Operation {
    Operation::new("getRebuild", Tag::Server, "Read how far the rebuild is").returns(200, "Its progress.", &["Rebuild"])
}

pub(in crate::server) fn start_rebuild() -> Operation {
    Operation::new("startRebuild", Tag::Server, "Rebuild the model store from the log")
        .returns(202, "It runs.", &["Rebuild"])
        .problems(&[ProblemType::Conflict])
}

pub(in crate::server) fn healthz() -> Operation {
    Operation::new("healthz", Tag::Server, "Check whether the process responds").returns(200, "It does.", &["Health"])
}

pub(in crate::server) fn readyz() -> Operation {
    Operation::new("readyz", Tag::Server, "Check whether the server can work")
        .details("`degraded`: single models are unavailable.")
        .returns(200, "It can.", &["Ready"])
        .returns(503, "A store does not work, or the server is about to stop.", &["Unready"])
        .or_type("application/problem+json", &["Problem"])
}

pub(in crate::server) fn metrics() -> Operation {
    Operation::new("metrics", Tag::Server, "Read the metrics")
        .returns_nothing(200, "Text for Prometheus; with `Accept: application/openmetrics-text` that of OpenMetrics.")
        .or_type("text/plain", &[])
        .or_type("application/openmetrics-text", &[])
}

pub(in crate::server) fn openapi() -> Operation {
    Operation::new("openapi", Tag::Server, "Read this document")
        .details(
            "With the models that the caller may read. Its size is limited: `x-snaphook-models` contains the number of \
             models that it leaves out, `model` selects some, and `after` continues where it ends.",
        )
        .parameters(&["openapiModel", "openapiAfter", "ifNoneMatchOpaque"])
        .returns(200, "An OpenAPI 3.1 document.", &["OpenApi"])
        .headers(&["ETag"])
        .returns_nothing(304, "Unchanged: it matches `If-None-Match`.")
        .headers(&["ETag"])
}

pub(in crate::server) fn docs() -> Operation {
    Operation::new("docs", Tag::Server, "Browse this document")
        .parameters(&["openapiModel", "openapiAfter", "ifNoneMatchOpaque"])
        .returns_nothing(200, "A page.")
        .or_type("text/html", &[])
        .headers(&["ETag"])
        .returns_nothing(304, "Unchanged: it matches `If-None-Match`.")
        .headers(&["ETag"])
}

pub(in crate::server) fn docs_file() -> Operation {
    Operation::new("docsFile", Tag::Server, "A file of the page")
        .parameters(&["docsFile", "ifNoneMatchOpaque"])
        .returns_nothing(200, "The file.")
        .or_type("text/javascript", &[])
        .or_type("text/css", &[])
        .or_type("text/plain", &[])
        .headers(&["ETag"])
        .returns_nothing(304, "Unchanged: it matches `If-None-Match`.")
        .headers(&["ETag"])
        .problems(&[ProblemType::NotFound])
}

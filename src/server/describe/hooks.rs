//! Descriptions of the operations of `/models/{model}/hooks`.

use crate::server::openapi::{Operation, Tag};
use crate::server::problem::ProblemType;

pub(in crate::server) fn all() -> Operation {
    Operation::new("listHooks", Tag::Hooks, "List the hooks of a model")
        .parameters(&["model"])
        .returns(200, "The chain of each of the six phases.", &["HookPhases"])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn get() -> Operation {
    Operation::new("getHooks", Tag::Hooks, "Read the chain of a phase")
        .details(
            "`Accept: application/wasm`, `text/javascript` or `application/typescript` returns the code of a \
             chain of one.",
        )
        .parameters(&["model", "phase"])
        .returns(200, "The chain, or the code of its one hook.", &["HookChain"])
        .or_type("application/wasm", &[])
        .or_type("text/javascript", &[])
        .or_type("application/typescript", &[])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn put() -> Operation {
    Operation::new("putHooks", Tag::Hooks, "Replace the chain of a phase")
        .details(
            "Code alone is a chain of one; a chain of any length is JSON. A chain that cannot work is rejected, with \
             the reason. `If-Match` has the model's `ETag`.",
        )
        .parameters(&["model", "phase", "hookName", "hookEngine", "hookOrigin"])
        .writes()
        .if_match()
        .takes(&["NewHookChain"])
        .takes_type("text/javascript", &[])
        .takes_type("application/typescript", &[])
        .takes_type("application/wasm", &[])
        .returns(200, "The chain; with `dry-run=true` the event that would be written.", &["HookChain", "DryRun"])
        .problems(&[
            ProblemType::NotFound,
            ProblemType::Invalid,
            ProblemType::TooComplex,
            ProblemType::HookFailed,
            ProblemType::NotSupported,
        ])
}

pub(in crate::server) fn delete() -> Operation {
    Operation::new("deleteHooks", Tag::Hooks, "Remove the chain of a phase")
        .details("`If-Match` has the model's `ETag`.")
        .parameters(&["model", "phase"])
        .writes()
        .if_match()
        .returns_nothing(204, "The phase has no hooks.")
        .returns(200, "With `dry-run=true`: the event that would be written.", &["DryRun"])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn log() -> Operation {
    Operation::new("getHookLog", Tag::Hooks, "Read what the hooks of a phase logged")
        .details("The last 200 lines. `Accept: text/event-stream` follows: each line is an event `log`.")
        .parameters(&["model", "phase"])
        .returns(200, "The last lines.", &["HookLog"])
        .or_type("text/event-stream", &[])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn stats() -> Operation {
    Operation::new("getHookStats", Tag::Hooks, "Read the statistics of the hooks of a phase")
        .parameters(&["model", "phase"])
        .returns(200, "Runs, failures and what they cost, for each hook of the chain.", &["HookStats"])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn history() -> Operation {
    Operation::new("getHookHistory", Tag::Hooks, "List the chains that a phase has had")
        .details(
            "Newest first; an empty chain: the hooks were removed. Binding the hooks of an earlier chain by their artifacts \
             rolls back.",
        )
        .parameters(&["model", "phase", "historyBefore", "limit"])
        .returns(200, "The chains.", &["HookHistory"])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn source() -> Operation {
    Operation::new("getHookSource", Tag::Hooks, "Read the code of a hook")
        .details("Of one that is bound or, with `artifact`, that was bound to the phase before.")
        .parameters(&["model", "phase", "sourceHook", "sourceArtifact"])
        .returns_nothing(200, "The code.")
        .or_type("text/javascript", &[])
        .or_type("application/typescript", &[])
        .or_type("application/wasm", &[])
        .problems(&[ProblemType::NotFound])
}

pub(in crate::server) fn check() -> Operation {
    Operation::new("checkHooks", Tag::Hooks, "Check whether a chain could be bound")
        .details("To whichever model. Nothing is stored, and the response has the reason if it could not.")
        .parameters(&["phase", "hookName", "hookEngine"])
        .takes(&["NewHookChain"])
        .takes_type("text/javascript", &[])
        .takes_type("application/typescript", &[])
        .takes_type("application/wasm", &[])
        .returns(200, "It could.", &["CheckedHooks"])
        .problems(&[ProblemType::Invalid, ProblemType::TooComplex, ProblemType::HookFailed, ProblemType::NotSupported])
}

pub(in crate::server) fn runs() -> Operation {
    Operation::new("followHookRuns", Tag::Hooks, "Follow the runs of all hooks")
        .details("Server-sent events from now on: `run`, `library`, and `missed` for a client that did not keep up.")
        .returns_nothing(200, "One event for each run.")
        .or_type("text/event-stream", &[])
}

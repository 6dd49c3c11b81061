//! Where the TypeScript of an item differs from the WIT. Each line is about one item, with its name from `contract.rs`.

/// Types that replace those of the WIT, where data is passed as JSON text; in JavaScript it is data. `read.event()` is
/// the result of the function; a `?` makes a parameter optional.
pub(super) const TYPES: [(&str, &str); 8] = [
    ("types.context.actor", "Actor | null"),
    ("types.instance.data", "Data"),
    ("read.query.query", "?Query"),
    ("read.event()", "Event | null"),
    ("write.create.data", "Data"),
    ("write.update.data", "Data"),
    ("process.command.program", "string"),
    ("process.command.args", "?string[]"),
];

/// Documentation that replaces that of the WIT.
pub(super) const WORDS: [(&str, &str); 9] = [
    ("types.access-error", "The error of a host call."),
    ("read", "Reads what the grant `read` opens. `await` is allowed, but not needed."),
    ("read.get", "Null if there is no such instance."),
    ("read.query", "A page of the model's instances."),
    ("read.event", "The event at that position, as in REST; null if there is none."),
    (
        "write",
        "Writes what the grant `write` opens. Each write is validated, runs hooks and is logged, as one over REST.",
    ),
    (
        "write.create",
        "`id`: the id of the instance; without it the server creates one. Fails with `exists` if the id is taken.",
    ),
    ("write.update", "`expected`: fails with `conflict` if the last event of the instance is at another position."),
    ("write.delete", "Returns the instance before the deletion. `expected`: as for `update`."),
];

/// Interfaces with a single function, which is a member of a handler's context in JavaScript. Other interfaces are
/// objects with the interface's name.
pub(super) const MEMBERS: [(&str, &str); 3] =
    [("http", "fetch: Fetch"), ("process", "run: Run"), ("secret", "secret(name: string): string")];

/// Items that `surface.d.ts` defines by hand, and the text there that defines them.
pub(super) const BY_HAND: [(&str, &str); 26] = [
    // Data of the change, which only some phases have.
    ("types.context.before", "before: Data"),
    ("types.context.after", "after: Data"),
    // A handler's results and exceptions.
    ("types.verdict", "export type Decision<Data>"),
    ("types.verdict.accept", "null | undefined | void"),
    ("types.verdict.amend", "Awaitable<Data |"),
    ("types.rejection", "class Reject extends Error"),
    ("types.rejection.message", "constructor(message?: string"),
    ("types.rejection.fields", "fields?: Record<string, string>"),
    ("types.field-error", "fields?: Record<string, string>"),
    ("types.field-error.pointer", "JSON Pointer into the data"),
    ("types.field-error.message", "a message for each"),
    ("pre-hook.check", "export type Decision<Data>"),
    ("post-hook.react", "type Awaitable<Value>"),
    // `fetch` as in browsers.
    ("http.send", "export type Fetch = ("),
    ("http.send.request", "init?: FetchInit"),
    ("http.request", "export interface FetchInit"),
    ("http.request.method", "method?: string"),
    ("http.request.url", "url: string | { toString(): string }"),
    ("http.request.headers", "headers?: Record<string, string>"),
    ("http.request.body", "body?: string | Uint8Array | ArrayBuffer | null"),
    ("http.request.timeout-ms", "signal?: unknown"),
    ("http.request.redirect", "redirect?: Redirect"),
    ("http.response", "export interface FetchResponse extends ResponseHead"),
    ("http.response.headers", "readonly headers: FetchHeaders"),
    ("http.response.body", "arrayBuffer(): Promise<ArrayBuffer>"),
    ("types.access-error.message", "extends Error"),
];

/// Items that JavaScript does not have, and why.
pub(super) const LEFT_OUT: [(&str, &str); 3] = [
    ("write.create.expected", "0 is what a creation means anyway"),
    ("pre-hook.check.ctx", "the context is taken apart above"),
    ("post-hook.react.ctx", "the context is taken apart above"),
];

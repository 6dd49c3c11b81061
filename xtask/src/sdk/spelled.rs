//! How JavaScript says what the WIT has another word for. Each line is about one item, by the names of `contract.rs`.

/// Instead of the type that follows from the WIT: data crosses as JSON text there and is data here. `read.event()` is what
/// the function answers; a `?` makes a parameter one that may be left out.
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

/// Instead of the words of the WIT, where they speak of how it crosses.
pub(super) const WORDS: [(&str, &str); 6] = [
    ("read", "Reads what the grant `read` opens. An answer may be awaited; it need not be."),
    ("read.get", "Null if there is no such instance."),
    ("read.query", "A page of the model's instances."),
    ("read.event", "The event at that position, as REST has it."),
    ("write.create", "`id`: the instance's, which is made up otherwise; fails with `exists` if there is one."),
    ("write.update", "`expected`: fails with `conflict` if the last event of the instance is at another position."),
];

/// Interfaces of one function that are that function in a handler's context, and how the context has them. The others are
/// objects of the interface's name.
pub(super) const MEMBERS: [(&str, &str); 3] =
    [("http", "fetch: Fetch"), ("process", "run: Run"), ("secret", "secret(name: string): string")];

/// What `surface.d.ts` says by hand, and the words there that do.
pub(super) const BY_HAND: [(&str, &str); 26] = [
    // Data of the change, which not every phase has.
    ("types.context.before", "before: Data"),
    ("types.context.after", "after: Data"),
    // What a handler returns, and what it throws.
    ("types.verdict", "export type Decision<Data>"),
    ("types.verdict.accept", "null | undefined | void"),
    ("types.verdict.amend", "Awaitable<Data |"),
    ("types.rejection", "class Reject extends Error"),
    ("types.rejection.message", "constructor(message?: string"),
    ("types.rejection.fields", "fields?: Record<string, string>"),
    ("types.field-error", "fields?: Record<string, string>"),
    ("types.field-error.pointer", "a JSON Pointer into the data"),
    ("types.field-error.message", "and a message each"),
    ("pre-hook.check", "export type Decision<Data>"),
    ("post-hook.react", "type Awaitable<Value>"),
    // The web's `fetch`.
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

/// What JavaScript does without, and why.
pub(super) const LEFT_OUT: [(&str, &str); 3] = [
    ("write.create.expected", "0 is what a creation means anyway"),
    ("pre-hook.check.ctx", "the context is taken apart above"),
    ("post-hook.react.ctx", "the context is taken apart above"),
];

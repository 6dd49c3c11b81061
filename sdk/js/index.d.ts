// The contract of hooks in JavaScript and TypeScript. `cargo xtask sdk` writes this file, from wit/since_v0_1_0/hook.wit.

/** When a hook runs. Pre phases decide before the change is stored, post phases act after it. */
export type Phase = "preCreate" | "postCreate" | "preUpdate" | "postUpdate" | "preDelete" | "postDelete";

/** The model of the instance, with the version that the change was checked against. */
export interface ModelRef {
  id: string;
  version: number;
}

/** The event that a post hook reacts to. */
export interface EventRef {
  position: number;
  id: string;
}

/** One entity of a model, as it is stored. */
export interface Instance<Data = Json> {
  id: string;
  model: string;
  model_version: number;
  revision: number;
  /** Position of its last event; what `expected` is compared with. */
  position: number;
  created_at: string;
  updated_at: string;
  data: Data;
}

/** The `code` of the errors that capabilities throw; more may come. */
export type ErrorCode = "denied" | "not-found" | "exists" | "conflict" | "invalid" | "rejected" | "timeout" | "too-large" | "failed" | (string & {});

/** A capability did not do what it was asked. */
export interface AccessError extends Error {
  code: ErrorCode;
}

/** Lines for the hook's own log. Whatever is given is written as `console.log` would. */
export interface Log {
  debug(...values: unknown[]): void;
  info(...values: unknown[]): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
}

export interface Page<Data = Json> {
  items: Instance<Data>[];
  /** Cursor of the next page. */
  next: string | null;
}

/** Reads what the grant `read` opens. An answer may be awaited; it need not be. */
export interface Read {
  /** Null if there is no such instance. */
  get<Data = Json>(model: string, id: string): Instance<Data> | null;
  /** A page of the model's instances. */
  query<Data = Json>(model: string, query?: Query): Page<Data>;
  /** The event at that position, as REST has it. */
  event(position: number): Event | null;
}

/** Writes what the grant `write` opens. Each write is a command like any other: validated, hooked, logged. */
export interface Write {
  /** `id`: the instance's, which is made up otherwise; fails with `exists` if there is one. */
  create<Data = Json>(model: string, data: Data, options?: { id?: string }): Instance<Data>;
  /** `expected`: fails with `conflict` if the last event of the instance is at another position. */
  update<Data = Json>(model: string, id: string, data: Data, options?: { expected?: number }): Instance<Data>;
  /** The instance as it was. */
  delete<Data = Json>(model: string, id: string, options?: { expected?: number }): Instance<Data>;
}

export type Redirect = "follow" | "manual" | "error";

/** What a response has beside its headers and body. */
export interface ResponseHead {
  readonly status: number;
  /** After redirects. */
  readonly url: string;
  readonly redirected: boolean;
}

export interface Output {
  /** Exit code; 128 + signal if a signal ended it. */
  code: number;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  stdin?: string | Uint8Array;
  env?: Record<string, string>;
  /** In milliseconds. */
  timeout?: number;
}

/** Programs that the grant `process` opens. There is no shell. */
export type Run = (program: string, args?: string[], options?: RunOptions) => Output;

/** One change. */
export interface Context {
  phase: Phase;
  model: ModelRef;
  /** Id of the instance. */
  id: string;
  actor: Actor | null;
  requestId: string | null;
  /** RFC 3339, UTC, with milliseconds. */
  time: string;
  /** 1 and up; greater than 1 when a post hook is tried again. */
  attempt: number;
  log: Log;
  read: Read;
  /** Secrets that the grant `secret` opens. */
  secret(name: string): string;
}

/** Decides on a change before it is stored. */
export interface PreContext extends Context {
  event: null;
}

/** Acts on a change after it is stored: at least once, in order per instance. */
export interface PostContext extends Context {
  event: EventRef;
  write: Write;
  /** Requests to the addresses that the grant `http` opens. */
  fetch: Fetch;
  /** Programs that the grant `process` opens. There is no shell. */
  run: Run;
}

export type PreCreate<Data = Json> = (context: PreContext & After<Data> & NoBefore) => Decision<Data>;
export type PostCreate<Data = Json> = (context: PostContext & After<Data> & NoBefore) => Awaitable<void>;
export type PreUpdate<Data = Json> = (context: PreContext & Before<Data> & After<Data>) => Decision<Data>;
export type PostUpdate<Data = Json> = (context: PostContext & Before<Data> & After<Data>) => Awaitable<void>;
export type PreDelete<Data = Json> = (context: PreContext & Before<Data> & NoAfter) => Awaitable<void>;
export type PostDelete<Data = Json> = (context: PostContext & Before<Data> & NoAfter) => Awaitable<void>;

// From here on by hand: what exists in JavaScript alone, or is another thing there than in WIT.

/** Data as JSON has it. */
export type Json = null | boolean | number | string | Json[] | { [property: string]: Json };

/** `eq`, `ne`, `lt`, `lte`, `gt`, `gte`, `in`, `nin`, `like`, `ilike`, `has` and `exists`, as in REST. */
export type Condition = { [operator: string]: Json };

/** Conditions by path, of which all must match. `or`, `and` and `not` join filters, unless their value is a condition. */
export type Filter = {
  or?: Filter[] | Condition;
  and?: Filter[] | Condition;
  not?: Filter | Condition;
  [path: string]: Condition | Filter | Filter[] | undefined;
};

export interface Query {
  filter?: Filter;
  /** Such as `-total,name`. */
  sort?: string;
  /** 1 to 1000; 50 if absent. */
  limit?: number;
  /** `next` of the page before. */
  cursor?: string;
}

/** Who asked for a change. */
export interface Actor {
  /** The name of a token, the subject of an issuer, or the name of a hook, endpoint or module. */
  id: string;
  kind: "anonymous" | "token" | "oidc" | "hook" | "endpoint" | "module" | "server" | (string & {});
  /** What the issuer says of the subject. */
  claims?: { [name: string]: Json };
}

/** An event as REST has it. */
export interface Event<Data = Json> {
  position: number;
  id: string;
  type: string;
  model: string;
  model_version: number;
  instance: string | null;
  revision: number;
  data: Data | null;
  actor: Actor | null;
  request_id: string | null;
  time: string;
  [member: string]: unknown;
}

export interface FetchInit {
  method?: string;
  /** A value may hold `{{secret:name}}`: the server puts the secret there, the hook never sees it. */
  headers?: Record<string, string> | Iterable<[string, string]>;
  body?: string | Uint8Array | ArrayBuffer | null;
  redirect?: Redirect;
  signal?: unknown;
}

export interface FetchHeaders extends Iterable<[string, string]> {
  get(name: string): string | null;
  has(name: string): boolean;
}

export interface FetchResponse extends ResponseHead {
  readonly ok: boolean;
  readonly headers: FetchHeaders;
  text(): Promise<string>;
  json(): Promise<any>;
  arrayBuffer(): Promise<ArrayBuffer>;
}

/** Requests to the addresses that the grant `http` opens. */
export type Fetch = (url: string | { toString(): string }, init?: FetchInit) => Promise<FetchResponse>;

interface Before<Data> {
  before: Data;
}

interface After<Data> {
  after: Data;
}

interface NoBefore {
  before?: undefined;
}

interface NoAfter {
  after?: undefined;
}

type Awaitable<Value> = Value | Promise<Value>;

/** Nothing: the change may pass. Data: with this data instead, which needs the grant `amend`. A thrown `Reject`: no. */
export type Decision<Data> = Awaitable<Data | null | undefined | void>;

declare global {
  /** Thrown in a pre hook it refuses the change (422). `fields`: a JSON Pointer into the data and a message each. */
  class Reject extends Error {
    constructor(message?: string, fields?: Record<string, string>);
  }
}

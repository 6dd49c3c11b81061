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

/** The error of a host call. */
export interface AccessError extends Error {
  code: ErrorCode;
}

/** Lines for the hook's own log. Values are formatted as by `console.log`. */
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

/** Reads what the grant `read` opens. `await` is allowed, but not needed. */
export interface Read {
  /** Null if there is no such instance. */
  get<Data = Json>(model: string, id: string): Instance<Data> | null;
  /** A page of the model's instances. */
  query<Data = Json>(model: string, query?: Query): Page<Data>;
  /** The event at that position, as in REST; null if there is none. */
  event(position: number): Event | null;
}

/** Writes what the grant `write` opens. Each write is validated, runs hooks and is logged, as one over REST. */
export interface Write {
  /** `id`: the id of the instance; without it the server creates one. Fails with `exists` if the id is taken. */
  create<Data = Json>(model: string, data: Data, options?: { id?: string }): Instance<Data>;
  /** `expected`: fails with `conflict` if the last event of the instance is at another position. */
  update<Data = Json>(model: string, id: string, data: Data, options?: { expected?: number }): Instance<Data>;
  /** Returns the instance before the deletion. `expected`: as for `update`. */
  delete<Data = Json>(model: string, id: string, options?: { expected?: number }): Instance<Data>;
}

export type Redirect = "follow" | "manual" | "error";

/** The members of a response except its headers and body. */
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

// The rest is written by hand: what exists only in JavaScript, or differs from the WIT.

/** A JSON value. */
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
  /** `next` of the previous page. */
  cursor?: string;
}

/** Who made a change. */
export interface Actor {
  /** The name of a token, the subject of an issuer, or the name of a hook, endpoint or module. */
  id: string;
  kind: "anonymous" | "token" | "oidc" | "hook" | "endpoint" | "module" | "server" | (string & {});
  /** The issuer's claims about the subject. */
  claims?: { [name: string]: Json };
}

/** An event, as in REST. */
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
  /** A value may contain `{{secret:name}}`: the server inserts the secret, and the hook never sees it. */
  headers?: Record<string, string> | Iterable<[string, string]>;
  body?: string | Uint8Array | ArrayBuffer | null;
  redirect?: Redirect;
  signal?: unknown;
}

/** Iterates over names and values, sorted by name. */
export interface FetchHeaders extends Iterable<[string, string]> {
  append(name: string, value: string): void;
  delete(name: string): void;
  get(name: string): string | null;
  getSetCookie(): string[];
  has(name: string): boolean;
  set(name: string, value: string): void;
  forEach(callback: (value: string, name: string, headers: FetchHeaders) => void, self?: unknown): void;
  entries(): IterableIterator<[string, string]>;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
}

/** A body is read as a whole, once. */
export interface FetchBody {
  readonly headers: FetchHeaders;
  readonly bodyUsed: boolean;
  /** There are no streams. */
  readonly body: null;
  text(): Promise<string>;
  json(): Promise<any>;
  bytes(): Promise<Uint8Array>;
  arrayBuffer(): Promise<ArrayBuffer>;
}

export interface FetchResponse extends ResponseHead, FetchBody {
  readonly ok: boolean;
  readonly statusText: string;
  clone(): FetchResponse;
}

export interface FetchRequest extends FetchBody {
  readonly method: string;
  readonly url: string;
  readonly redirect: Redirect;
  readonly signal: WebAbortSignal;
  clone(): FetchRequest;
}

/** Requests to the addresses that the grant `http` opens. */
export type Fetch = (url: string | { toString(): string } | FetchRequest, init?: FetchInit) => Promise<FetchResponse>;

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

/** Return nothing to accept the change, or data to replace its data (needs the grant `amend`). Throw a `Reject` to reject it. */
export type Decision<Data> = Awaitable<Data | null | undefined | void>;

// The web APIs of the engines; docs/hooks/engines.md lists what they lack. If a project has these globals from `lib: ["dom"]`,
// those are used instead.

type Own<Type> = typeof globalThis extends { onmessage: any } ? {} : Type;

interface WebConsole {
  log(...values: unknown[]): void;
  info(...values: unknown[]): void;
  debug(...values: unknown[]): void;
  trace(...values: unknown[]): void;
  dir(...values: unknown[]): void;
  table(...values: unknown[]): void;
  group(...values: unknown[]): void;
  groupCollapsed(...values: unknown[]): void;
  groupEnd(): void;
  warn(...values: unknown[]): void;
  error(...values: unknown[]): void;
  assert(condition?: unknown, ...values: unknown[]): void;
  count(label?: string): void;
  time(label?: string): void;
  timeEnd(label?: string): void;
}

interface WebEvent {
  readonly type: string;
  readonly target: unknown;
  readonly cancelable: boolean;
  readonly defaultPrevented: boolean;
  preventDefault(): void;
}

type WebListener = ((event: WebEvent) => void) | { handleEvent(event: WebEvent): void };

interface WebEventTarget {
  addEventListener(type: string, listener: WebListener | null, options?: { once?: boolean } | boolean): void;
  removeEventListener(type: string, listener: WebListener | null): void;
  dispatchEvent(event: WebEvent): boolean;
}

interface WebAbortSignal extends WebEventTarget {
  readonly aborted: boolean;
  readonly reason: any;
  onabort: ((event: WebEvent) => void) | null;
  throwIfAborted(): void;
}

interface WebAbortController {
  readonly signal: WebAbortSignal;
  abort(reason?: unknown): void;
}

interface WebDOMException extends Error {
  readonly code: number;
}

type WebBytes = ArrayBuffer | ArrayBufferView;

interface WebTextEncoder {
  readonly encoding: string;
  encode(text?: string): Uint8Array;
}

interface WebTextDecoder {
  readonly encoding: string;
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;
  decode(bytes?: WebBytes): string;
}

interface WebURLSearchParams extends Iterable<[string, string]> {
  readonly size: number;
  append(name: string, value: string): void;
  delete(name: string, value?: string): void;
  get(name: string): string | null;
  getAll(name: string): string[];
  has(name: string, value?: string): boolean;
  set(name: string, value: string): void;
  sort(): void;
  forEach(callback: (value: string, name: string, params: WebURLSearchParams) => void, self?: unknown): void;
  entries(): IterableIterator<[string, string]>;
  keys(): IterableIterator<string>;
  values(): IterableIterator<string>;
  toString(): string;
}

interface WebURL {
  href: string;
  protocol: string;
  username: string;
  password: string;
  host: string;
  hostname: string;
  port: string;
  pathname: string;
  search: string;
  hash: string;
  readonly origin: string;
  readonly searchParams: WebURLSearchParams;
  toString(): string;
  toJSON(): string;
}

interface WebCrypto {
  randomUUID(): string;
  getRandomValues<Values extends ArrayBufferView>(values: Values): Values;
  readonly subtle: {
    /** SHA-1, SHA-256, SHA-384 and SHA-512. */
    digest(algorithm: string | { name: string }, data: WebBytes): Promise<ArrayBuffer>;
  };
}

interface WebPerformance {
  now(): number;
  readonly timeOrigin: number;
}

declare global {
  /** Throw it in a pre hook to reject the change (422). `fields`: a message for each JSON Pointer into the data. */
  class Reject extends Error {
    constructor(message?: string, fields?: Record<string, string>);
  }

  interface Console extends Own<WebConsole> {}
  interface Event extends Own<WebEvent> {}
  interface EventTarget extends Own<WebEventTarget> {}
  interface AbortSignal extends Own<WebAbortSignal> {}
  interface AbortController extends Own<WebAbortController> {}
  interface DOMException extends Own<WebDOMException> {}
  interface TextEncoder extends Own<WebTextEncoder> {}
  interface TextDecoder extends Own<WebTextDecoder> {}
  interface URL extends Own<WebURL> {}
  interface URLSearchParams extends Own<WebURLSearchParams> {}
  interface Headers extends Own<FetchHeaders> {}
  interface Request extends Own<FetchRequest> {}
  interface Response extends Own<FetchResponse> {}
  interface Crypto extends Own<WebCrypto> {}
  interface Performance extends Own<WebPerformance> {}

  var console: typeof globalThis extends { onmessage: any; console: infer There } ? There : Console;
  var Event: typeof globalThis extends { onmessage: any; Event: infer There } ? There : { new (type: string, init?: { cancelable?: boolean }): Event };
  var EventTarget: typeof globalThis extends { onmessage: any; EventTarget: infer There } ? There : { new (): EventTarget };
  var AbortSignal: typeof globalThis extends { onmessage: any; AbortSignal: infer There } ? There : {
    abort(reason?: unknown): AbortSignal;
    timeout(milliseconds: number): AbortSignal;
    any(signals: Iterable<AbortSignal>): AbortSignal;
  };
  var AbortController: typeof globalThis extends { onmessage: any; AbortController: infer There } ? There : { new (): AbortController };
  var DOMException: typeof globalThis extends { onmessage: any; DOMException: infer There } ? There : { new (message?: string, name?: string): DOMException };
  var TextEncoder: typeof globalThis extends { onmessage: any; TextEncoder: infer There } ? There : { new (): TextEncoder };
  var TextDecoder: typeof globalThis extends { onmessage: any; TextDecoder: infer There } ? There : { new (label?: string, options?: { fatal?: boolean; ignoreBOM?: boolean }): TextDecoder };
  var URL: typeof globalThis extends { onmessage: any; URL: infer There } ? There : {
    new (url: string | URL, base?: string | URL): URL;
    canParse(url: string | URL, base?: string | URL): boolean;
    parse(url: string | URL, base?: string | URL): URL | null;
  };
  var URLSearchParams: typeof globalThis extends { onmessage: any; URLSearchParams: infer There } ? There : {
    new (init?: string | Record<string, string> | Iterable<[string, string]>): URLSearchParams;
  };
  var Headers: typeof globalThis extends { onmessage: any; Headers: infer There } ? There : {
    new (init?: Record<string, string> | Iterable<[string, string]>): Headers;
  };
  var Request: typeof globalThis extends { onmessage: any; Request: infer There } ? There : {
    new (input: string | URL | Request, init?: FetchInit): Request;
  };
  var Response: typeof globalThis extends { onmessage: any; Response: infer There } ? There : {
    new (
      body?: string | WebBytes | URLSearchParams | null,
      init?: { status?: number; statusText?: string; headers?: Record<string, string> | Iterable<[string, string]> },
    ): Response;
    json(data: unknown, init?: { status?: number; headers?: Record<string, string> | Iterable<[string, string]> }): Response;
  };
  var crypto: typeof globalThis extends { onmessage: any; crypto: infer There } ? There : Crypto;
  var performance: typeof globalThis extends { onmessage: any; performance: infer There } ? There : Performance;

  function fetch(url: string | URL | Request, init?: FetchInit): Promise<Response>;
  function setTimeout(callback: (...args: any[]) => void, milliseconds?: number, ...args: any[]): number;
  function setInterval(callback: (...args: any[]) => void, milliseconds?: number, ...args: any[]): number;
  function setImmediate(callback: (...args: any[]) => void, ...args: any[]): number;
  function clearTimeout(timer?: number): void;
  function clearInterval(timer?: number): void;
  function clearImmediate(timer?: number): void;
  function queueMicrotask(callback: () => void): void;
  function structuredClone<Value>(value: Value): Value;
  function btoa(text: string): string;
  function atob(text: string): string;
}

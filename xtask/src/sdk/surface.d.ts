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

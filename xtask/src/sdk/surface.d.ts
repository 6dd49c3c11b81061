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

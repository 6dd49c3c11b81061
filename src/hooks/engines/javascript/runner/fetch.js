// fetch, Request, Response, Headers. The server sends the request and follows redirects, since it checks each address.

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

class Headers {
  // [lower-case name, value], in the order of arrival.
  #rows = [];

  constructor(init) {
    if (init === undefined || init === null) return;
    const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
    for (const [name, value] of pairs) this.append(name, value);
  }

  static #name(name) {
    const text = `${name}`;
    if (!TOKEN.test(text)) throw new NativeTypeError(`${inspect(text)} is not a header name`);
    return text.toLowerCase();
  }

  append(name, value) {
    this.#rows.push([Headers.#name(name), `${value}`.trim()]);
  }

  delete(name) {
    const key = Headers.#name(name);
    this.#rows = this.#rows.filter((row) => row[0] !== key);
  }

  get(name) {
    const key = Headers.#name(name);
    const values = this.#rows.filter((row) => row[0] === key).map((row) => row[1]);
    return values.length === 0 ? null : values.join(", ");
  }

  getSetCookie() {
    return this.#rows.filter((row) => row[0] === "set-cookie").map((row) => row[1]);
  }

  has(name) {
    const key = Headers.#name(name);
    return this.#rows.some((row) => row[0] === key);
  }

  set(name, value) {
    this.delete(name);
    this.append(name, value);
  }

  forEach(callback, self) {
    for (const [name, value] of this) callback.call(self, value, name, this);
  }

  *entries() {
    for (const name of [...new NativeSet(this.#rows.map((row) => row[0]))].sort()) {
      if (name === "set-cookie") {
        for (const value of this.getSetCookie()) yield [name, value];
      } else {
        yield [name, this.get(name)];
      }
    }
  }

  *keys() {
    for (const [name] of this.entries()) yield name;
  }

  *values() {
    for (const [, value] of this.entries()) yield value;
  }

  [Symbol.iterator]() {
    return this.entries();
  }

  static rowsOf(headers) {
    return headers.#rows;
  }
}

const headerRows = Headers.rowsOf;
delete Headers.rowsOf;

// Bytes and the type that they bring along.
function bodyBytes(body) {
  if (body === undefined || body === null) return [null, null];
  if (typeof body === "string") return [hostEncode(toWellFormed(body)), "text/plain;charset=UTF-8"];
  if (body instanceof URLSearchParams) {
    return [hostEncode(body.toString()), "application/x-www-form-urlencoded;charset=UTF-8"];
  }
  if (body instanceof NativeArrayBuffer || isView(body)) return [toBytes(body).slice(), null];
  return [hostEncode(toWellFormed(`${body}`)), "text/plain;charset=UTF-8"];
}

class Body {
  #bytes = null;
  #used = false;

  static fill(body, bytes) {
    body.#bytes = bytes;
  }

  static peek(body) {
    if (body.#used) throw new NativeTypeError("the body was read already");
    return body.#bytes;
  }

  // There are no streams: the whole body is there or there is none.
  get body() {
    return null;
  }

  get bodyUsed() {
    return this.#used;
  }

  #take() {
    const bytes = Body.peek(this);
    this.#used = bytes !== null;
    return bytes ?? new NativeUint8Array(0);
  }

  async text() {
    return hostDecode(this.#take(), false).replace(/^\ufeff/, "");
  }

  async json() {
    return parse(hostDecode(this.#take(), false).replace(/^\ufeff/, ""));
  }

  async bytes() {
    return this.#take();
  }

  async arrayBuffer() {
    const bytes = this.#take();
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  }
}

const { fill: fillBody, peek: peekBody } = Body;

class Request extends Body {
  constructor(input, init = {}) {
    super();
    const from = input instanceof Request ? input : null;
    this.method = `${init.method ?? from?.method ?? "GET"}`;
    const upper = this.method.toUpperCase();
    if (["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"].includes(upper)) this.method = upper;
    this.url = from ? from.url : new URL(input).href;
    this.headers = new Headers(init.headers ?? from?.headers);
    this.redirect = init.redirect ?? from?.redirect ?? "follow";
    this.signal = init.signal ?? from?.signal ?? new AbortController().signal;
    const [bytes, type] = init.body === undefined && from ? [peekBody(from), null] : bodyBytes(init.body);
    if (bytes !== null && (this.method === "GET" || this.method === "HEAD")) {
      throw new NativeTypeError(`a ${this.method} request has no body`);
    }
    fillBody(this, bytes);
    if (type !== null && !this.headers.has("content-type")) this.headers.set("content-type", type);
  }

  clone() {
    return new Request(this);
  }
}

class Response extends Body {
  constructor(body, { status = 200, statusText = "", headers } = {}) {
    super();
    if (!(status >= 200 && status <= 599)) throw new NativeRangeError(`${status} is not a status from 200 to 599`);
    this.status = status;
    this.statusText = `${statusText}`;
    this.headers = new Headers(headers);
    this.url = "";
    this.redirected = false;
    this.type = "default";
    const [bytes, type] = bodyBytes(body);
    fillBody(this, bytes);
    if (type !== null && !this.headers.has("content-type")) this.headers.set("content-type", type);
  }

  static json(data, init = {}) {
    const response = new Response(stringify(data), init);
    if (!new Headers(init.headers).has("content-type")) response.headers.set("content-type", "application/json");
    return response;
  }

  get ok() {
    return this.status >= 200 && this.status <= 299;
  }

  clone() {
    const copy = new Response(null, this);
    fillBody(copy, peekBody(this)?.slice() ?? null);
    copy.url = this.url;
    copy.redirected = this.redirected;
    copy.type = this.type;
    return copy;
  }
}

function headOf(request) {
  const left = signalLeft(request.signal);
  return stringify({
    method: request.method,
    url: request.url,
    headers: headerRows(request.headers),
    redirect: `${request.redirect}`,
    timeout: isFiniteNumber(left) ? max(1, floor(left)) : null,
  });
}

function responseOf(signal, answer, body) {
  signal.throwIfAborted();
  const { status, url, redirected, headers } = answerOf(answer);
  const response = new Response(null, { headers });
  response.status = status;
  response.url = url;
  response.redirected = redirected;
  response.type = "basic";
  fillBody(response, body);
  return response;
}

const RESPONSE_MEMBERS = ["status", "statusText", "ok", "headers", "url", "redirected", "type", "body", "bodyUsed",
  "text", "json", "bytes", "arrayBuffer", "clone"];

// A promise of the response that can be used as the response too: that waits for it.
function fetch(input, init) {
  const pending = new Pending(RESPONSE_MEMBERS, (response, name) => {
    const value = response[name];
    return typeof value === "function" ? value.bind(response) : value;
  });
  try {
    const request = new Request(input, init ?? {});
    const { signal } = request;
    signal.throwIfAborted();
    const body = peekBody(request) ?? new NativeUint8Array(0);
    pending.start(SEND, headOf(request), body, (answer, bytes) => responseOf(signal, answer, bytes));
    signalListen(signal, () => pending.abort(() => signal.throwIfAborted()));
  } catch (error) {
    pending.fail(error);
  }
  return pending.promise;
}

define(globals, "Headers", Headers);
define(globals, "Request", Request);
define(globals, "Response", Response);
define(globals, "fetch", fetch);

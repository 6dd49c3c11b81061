// URL and URLSearchParams. Parsing is the server's: the same parser decides what a grant covers.

class URLSearchParams {
  #pairs = [];
  #changed = null;

  constructor(init = "") {
    if (typeof init === "object" && init !== null) {
      const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      for (const pair of pairs) {
        const [name, value, ...rest] = pair;
        if (rest.length > 0 || value === undefined) throw new NativeTypeError("expected pairs of name and value");
        this.#pairs.push([`${name}`, `${value}`]);
      }
    } else {
      this.#pairs = parsePairs(`${init}`);
    }
  }

  // For URL: keeps its search in step.
  static bind(params, search, changed) {
    params.#pairs = parsePairs(search);
    if (changed) params.#changed = changed;
  }

  get size() {
    return this.#pairs.length;
  }

  append(name, value) {
    this.#pairs.push([`${name}`, `${value}`]);
    this.#changed?.();
  }

  delete(name, value) {
    this.#pairs = this.#pairs.filter((pair) => pair[0] !== `${name}` || (value !== undefined && pair[1] !== `${value}`));
    this.#changed?.();
  }

  get(name) {
    return this.#pairs.find((pair) => pair[0] === `${name}`)?.[1] ?? null;
  }

  getAll(name) {
    return this.#pairs.filter((pair) => pair[0] === `${name}`).map((pair) => pair[1]);
  }

  has(name, value) {
    return this.#pairs.some((pair) => pair[0] === `${name}` && (value === undefined || pair[1] === `${value}`));
  }

  set(name, value) {
    const index = this.#pairs.findIndex((pair) => pair[0] === `${name}`);
    if (index < 0) return this.append(name, value);
    this.#pairs[index][1] = `${value}`;
    this.#pairs = this.#pairs.filter((pair, at) => at <= index || pair[0] !== `${name}`);
    this.#changed?.();
  }

  sort() {
    this.#pairs.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    this.#changed?.();
  }

  forEach(callback, self) {
    for (const [name, value] of this.#pairs) callback.call(self, value, name, this);
  }

  *entries() {
    for (const [name, value] of this.#pairs) yield [name, value];
  }

  *keys() {
    for (const [name] of this.#pairs) yield name;
  }

  *values() {
    for (const [, value] of this.#pairs) yield value;
  }

  [Symbol.iterator]() {
    return this.entries();
  }

  toString() {
    return this.#pairs.map(([name, value]) => encodePart(name) + "=" + encodePart(value)).join("&");
  }
}

const bindParams = URLSearchParams.bind;
delete URLSearchParams.bind;

function parsePairs(text) {
  const query = text[0] === "?" ? text.slice(1) : text;
  return query.split("&").filter((part) => part !== "").map((part) => {
    const at = part.indexOf("=");
    return at < 0 ? [decodePart(part), ""] : [decodePart(part.slice(0, at)), decodePart(part.slice(at + 1))];
  });
}

function encodePart(text) {
  const escaped = encodeURIComponent(toWellFormed(text));
  return escaped.replace(/[!'()~]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase()).replace(/%20/g, "+");
}

function decodePart(text) {
  const plain = text.replace(/\+/g, " ");
  if (!plain.includes("%")) return plain;
  const source = hostEncode(toWellFormed(plain));
  const bytes = [];
  for (let index = 0; index < source.length; index++) {
    const hex = source[index] === 37 ? NativeString.fromCharCode(source[index + 1], source[index + 2]) : "";
    if (/^[0-9a-fA-F]{2}$/.test(hex)) {
      bytes.push(parseInt(hex, 16));
      index += 2;
    } else {
      bytes.push(source[index]);
    }
  }
  return hostDecode(new NativeUint8Array(bytes), false);
}

function askUrl(...request) {
  const answer = hostUrl(stringify(request));
  return answer === "" ? null : parse(answer);
}

class URL {
  #parts;
  #params;

  constructor(url, base) {
    this.#parts = askUrl("parse", toWellFormed(`${url}`), base === undefined ? null : toWellFormed(`${base}`));
    if (this.#parts === null) throw new NativeTypeError(`${inspect(`${url}`)} is not a URL`);
  }

  static canParse(url, base) {
    return URL.parse(url, base) !== null;
  }

  static parse(url, base) {
    try {
      return new URL(url, base);
    } catch {
      return null;
    }
  }

  get origin() {
    return this.#parts.origin;
  }

  get searchParams() {
    if (!this.#params) {
      this.#params = new URLSearchParams();
      bindParams(this.#params, this.#parts.search, () => this.#set("search", this.#params.toString()));
    }
    return this.#params;
  }

  toString() {
    return this.#parts.href;
  }

  toJSON() {
    return this.#parts.href;
  }

  #set(name, value) {
    const parts = askUrl(name, this.#parts.href, toWellFormed(`${value}`));
    if (parts !== null) this.#parts = parts;
    else if (name === "href") throw new NativeTypeError(`${inspect(`${value}`)} is not a URL`);
  }

  static {
    for (const name of ["href", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash"]) {
      defineProperty(URL.prototype, name, {
        get() {
          return this.#parts[name];
        },
        set(value) {
          this.#set(name, value);
          if (this.#params && (name === "search" || name === "href")) bindParams(this.#params, this.#parts.search, null);
        },
        enumerable: true,
        configurable: true,
      });
    }
  }
}

define(globals, "URL", URL);
define(globals, "URLSearchParams", URLSearchParams);

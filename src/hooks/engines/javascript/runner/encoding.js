// TextEncoder, TextDecoder, atob, btoa. UTF-8 only: that is what the web sends and what JSON is.

class TextEncoder {
  get encoding() {
    return "utf-8";
  }

  encode(text = "") {
    return hostEncode(toWellFormed(`${text}`));
  }

  encodeInto(text, target) {
    const source = `${text}`;
    let read = 0;
    let written = 0;
    for (const character of source) {
      const bytes = this.encode(character);
      if (written + bytes.length > target.length) break;
      target.set(bytes, written);
      written += bytes.length;
      read += character.length;
    }
    return { read, written };
  }
}

class TextDecoder {
  #fatal;
  #ignoreBOM;

  constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
    const name = `${label}`.trim().toLowerCase();
    if (name !== "utf-8" && name !== "utf8" && name !== "unicode-1-1-utf-8") {
      throw new NativeRangeError(`the encoding ${label} is not supported, only utf-8 is`);
    }
    this.#fatal = !!fatal;
    this.#ignoreBOM = !!ignoreBOM;
  }

  get encoding() {
    return "utf-8";
  }

  get fatal() {
    return this.#fatal;
  }

  get ignoreBOM() {
    return this.#ignoreBOM;
  }

  decode(data) {
    const text = data === undefined ? "" : hostDecode(toBytes(data), this.#fatal);
    if (text === null || text === undefined) throw new NativeTypeError("the bytes are not valid utf-8");
    return !this.#ignoreBOM && charAt(text, 0) === "\ufeff" ? slice(text, 1) : text;
  }
}

// Any buffer or view as bytes; without a copy where that is possible.
function toBytes(data) {
  if (data instanceof NativeUint8Array) return data;
  if (isView(data)) return new NativeUint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (data instanceof NativeArrayBuffer) return new NativeUint8Array(data);
  throw new NativeTypeError("expected an ArrayBuffer or a view of one");
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

function btoa(data) {
  const text = `${data}`;
  let out = "";
  for (let index = 0; index < text.length; index += 3) {
    const [a, b, c] = [text.charCodeAt(index), text.charCodeAt(index + 1), text.charCodeAt(index + 2)];
    if (a > 255 || b > 255 || c > 255) {
      throw new DOMException("btoa takes characters up to U+00FF", "InvalidCharacterError");
    }
    out += BASE64[a >> 2] + BASE64[((a & 3) << 4) | (b >> 4)];
    out += index + 1 < text.length ? BASE64[((b & 15) << 2) | (c >> 6)] : "=";
    out += index + 2 < text.length ? BASE64[c & 63] : "=";
  }
  return out;
}

function atob(data) {
  let text = `${data}`.replace(/[\t\n\f\r ]/g, "");
  if (text.length % 4 === 0) text = text.replace(/==?$/, "");
  if (text.length % 4 === 1 || /[^A-Za-z0-9+/]/.test(text)) {
    throw new DOMException("the text is not base64", "InvalidCharacterError");
  }
  let out = "";
  let bits = 0;
  let count = 0;
  for (const character of text) {
    bits = ((bits << 6) | BASE64.indexOf(character)) & 0xffffff;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out += NativeString.fromCharCode((bits >> count) & 255);
    }
  }
  return out;
}

define(globals, "TextEncoder", TextEncoder);
define(globals, "TextDecoder", TextDecoder);
define(globals, "btoa", btoa);
define(globals, "atob", atob);

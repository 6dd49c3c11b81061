
// V8 14 reads names with escapes wrongly. It compares a name with the one that it expects there, from an object like this one, as
// the text has it: after `{"\\": 1}`, the name of `{"\n": 1}` begins like that, and is taken for it. So a text in which a
// name has an escape is read here, value by value, and V8 reads only texts and numbers alone.

const { parse: nativeParse } = JSON;
const sliceText = Function.prototype.bind.bind(Function.prototype.call)(String.prototype.slice);
const findText = Function.prototype.bind.bind(Function.prototype.call)(String.prototype.indexOf);
const ownKeys = Object.keys;
const QUOTE = 34, COMMA = 44, COLON = 58, OPEN_LIST = 91, BACKSLASH = 92, CLOSE_LIST = 93, OPEN_OBJECT = 123, CLOSE_OBJECT = 125;

setOwn(JSON, "parse", {
  __proto__: null,
  writable: true,
  enumerable: false,
  configurable: true,
  value: ({
    parse(text, reviver) {
      text = `${text}`;
      if (findText(text, "\\") < 0 || !hasEscapedName(text)) return nativeParse(text, reviver);
      // What is no JSON throws.
      nativeParse(text);
      const value = readValue({ text, at: 0 });
      return typeof reviver === "function" ? revive({ "": value }, "", reviver) : value;
    },
  }).parse,
});

function hasEscapedName(text) {
  let backslash = -1;
  for (let at = 0; at < text.length; at++) {
    if (charCodeAt(text, at) !== QUOTE) continue;
    // The next one is looked for once, however many texts are before it.
    if (backslash < at) backslash = findText(text, "\\", at);
    if (backslash < 0) return false;
    at = endOfText(text, at) - 1;
    if (backslash < at && charCodeAt(text, afterSpace(text, at + 1)) === COLON) return true;
  }
  return false;
}

// Behind the closing quote; of a text without one, behind its end.
function endOfText(text, at) {
  for (at++; at < text.length; at++) {
    const unit = charCodeAt(text, at);
    if (unit === BACKSLASH) at++;
    else if (unit === QUOTE) return at + 1;
  }
  return at;
}

function afterSpace(text, at) {
  while (charCodeAt(text, at) <= 32) at++;
  return at;
}

// The text is valid, and `reader.at` is where a value begins, or before it.
function readValue(reader) {
  const { text } = reader;
  reader.at = afterSpace(text, reader.at);
  const first = charCodeAt(text, reader.at);
  if (first === OPEN_OBJECT) return readObject(reader);
  if (first === OPEN_LIST) return readList(reader);
  const start = reader.at;
  if (first === QUOTE) reader.at = endOfText(text, start);
  else {
    for (;;) {
      const unit = charCodeAt(text, reader.at);
      if (!(unit > 32) || unit === COMMA || unit === CLOSE_LIST || unit === CLOSE_OBJECT) break;
      reader.at++;
    }
  }
  return nativeParse(sliceText(text, start, reader.at));
}

function readObject(reader) {
  const object = {};
  for (;;) {
    // Behind the bracket or the comma.
    reader.at = afterSpace(reader.text, reader.at + 1);
    if (charCodeAt(reader.text, reader.at) === CLOSE_OBJECT) break;
    const name = readValue(reader);
    reader.at = afterSpace(reader.text, reader.at) + 1;
    put(object, name, readValue(reader));
    reader.at = afterSpace(reader.text, reader.at);
    if (charCodeAt(reader.text, reader.at) === CLOSE_OBJECT) break;
  }
  reader.at++;
  return object;
}

function readList(reader) {
  const list = [];
  for (;;) {
    reader.at = afterSpace(reader.text, reader.at + 1);
    if (charCodeAt(reader.text, reader.at) === CLOSE_LIST) break;
    put(list, list.length, readValue(reader));
    reader.at = afterSpace(reader.text, reader.at);
    if (charCodeAt(reader.text, reader.at) === CLOSE_LIST) break;
  }
  reader.at++;
  return list;
}

// Whatever stands on prototypes.
function put(target, name, value) {
  setOwn(target, name, { __proto__: null, value, writable: true, enumerable: true, configurable: true });
}

function revive(holder, name, reviver) {
  const value = holder[name];
  if (typeof value === "object" && value !== null) {
    const names = ownKeys(value);
    for (let index = 0; index < names.length; index++) {
      const revived = revive(value, names[index], reviver);
      if (revived === undefined) delete value[names[index]];
      else put(value, names[index], revived);
    }
  }
  return reflectApply(reviver, holder, [name, value]);
}


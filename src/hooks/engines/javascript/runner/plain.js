// What a handler returns has to be plain data: JSON would make `{}` of a Map and leave a function out, without a word.

const EXPECTED = ", expected the new data (an object), or nothing to accept the change as it is";

// Deeper than data may be. What goes on, or holds itself, is found by JSON and by the store.
const PLAIN_DEPTH_MAX = 200;

// What is wrong with a returned value, in words that go on after "returned"; undefined if nothing is.
function faultOf(value) {
  if (typeof value !== "object") return withArticle(typeof value) + EXPECTED;
  const fault = faultIn(value, 0);
  if (fault === undefined) return undefined;
  const { what, advice, path } = fault;
  if (path === "") return what + (advice === undefined ? EXPECTED : ": " + advice);
  return "data with " + what + " at " + path + (advice === undefined ? ", which JSON cannot hold" : ": " + advice);
}

function faultIn(value, depth) {
  switch (typeof value) {
    case "object":
      return value === null ? undefined : faultInObject(value, depth);
    case "number":
      // An infinite number may be one that came in as 1e400, which gets its digits back.
      return value - value === 0 || (marker !== "" && value === value) ? undefined : fault("the number " + value);
    case "bigint":
      return fault("a BigInt", "make it a number or a text");
    case "function":
      return fault("a function");
    case "symbol":
      return fault("a symbol");
    default:
      // What is undefined is left out, as JSON does.
      return undefined;
  }
}

function faultInObject(value, depth) {
  if (value === globals) return fault("globalThis");
  if (value === given) return fault("the context of the call", "return the new data, such as `{ ...after }`");
  const prototype = getPrototypeOf(value);
  const listed = isArray(value);
  if (prototype !== ObjectPrototype && prototype !== null && !listed) {
    if (readReject(value) !== undefined) return fault("a Reject", "write `throw new Reject(…)`");
    if (isErrorLike(value)) return fault(withArticle(readText(value, "name") || "Error"), "write `throw`");
    if (prototype === promisePrototype || typeof value.then === "function") return fault("a promise", "write `await`");
    // A date, and whatever else says what it is in JSON.
    return typeof value.toJSON === "function" ? undefined : fault(withArticle(className(prototype)));
  }
  if (depth === PLAIN_DEPTH_MAX || typeof value.toJSON === "function") return undefined;
  if (listed) {
    for (let index = 0; index < value.length; index++) {
      const found = faultIn(value[index], depth + 1);
      if (found !== undefined) return under(NativeString(index), found);
    }
    return undefined;
  }
  const names = objectKeys(value);
  for (let index = 0; index < names.length; index++) {
    const found = faultIn(value[names[index]], depth + 1);
    if (found !== undefined) return under(names[index], found);
  }
  return undefined;
}

function fault(what, advice) {
  return { what, advice, path: "" };
}

function under(name, found) {
  found.path = "/" + escaped(name) + found.path;
  return found;
}

// A name as a step of a JSON pointer.
function escaped(name) {
  let text = "";
  for (let index = 0; index < name.length; index++) {
    const character = charAt(name, index);
    text += character === "~" ? "~0" : character === "/" ? "~1" : character;
  }
  return text;
}

// The class that made an object, by its prototype.
function className(prototype) {
  const tag = slice(objectToString(prototype), 8, -1);
  if (tag !== "Object") return tag;
  return hasOwn(prototype, "constructor") ? readText(prototype.constructor, "name") || "object of a class" : "object with a prototype";
}

function withArticle(name) {
  switch (charAt(name, 0)) {
    case "a": case "e": case "i": case "o": case "A": case "E": case "I": case "O":
      return "an " + name;
    default:
      return "a " + name;
  }
}

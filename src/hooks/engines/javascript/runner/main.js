// The way of one call: load the source, run the handler, answer.
//
// An answer is one character for what it is, one for whether work is left behind (`1`: this sandbox must not serve
// another call), and the rest: `a` accept · `l` accept, though `after` was changed in vain · `m` the returned data as JSON text ·
// `o` the length of data that is too long · `t` what was returned that is no data, in words · `j` why the data is no JSON ·
// `r` a Reject · `e` what was thrown.

const ANSWER_LENGTH_MAX = 16 * 1024 * 1024;

class Reject extends NativeError {
  #fields = [];

  constructor(message, fields) {
    super(message === undefined ? "rejected" : typeof message === "string" ? message : inspect(message));
    if (fields !== null && typeof fields === "object") {
      const names = objectKeys(fields);
      for (let index = 0; index < names.length; index++) {
        this.#fields[index] = { pointer: cut(names[index]), message: inspect(fields[names[index]]) };
      }
    }
  }

  // Undefined for anything that is no Reject.
  static read(value) {
    if (value === null || typeof value !== "object" || !(#fields in value)) return undefined;
    return { message: cut(readText(value, "message") ?? "rejected"), fields: value.#fields };
  }
}
const readReject = Reject.read;
delete Reject.read;
define(Reject.prototype, "name", "Reject");
define(globals, "Reject", Reject);

let program = null;
let handlers = null;
let given = null;
let pending = null;
let wantsData = false;
// `after` and what it was, as JSON, where the source may change it in place.
let watched = null;
let marker = "";

export function check(source) {
  try {
    indirectEval(source);
    return null;
  } catch (error) {
    return stringify(describe(error));
  }
}

// What is wrong with the source is told by the first call.
function load(source) {
  try {
    program = indirectEval(source);
  } catch (error) {
    program = () => { throw error; };
  }
}

// The source is empty where it was loaded before.
export function run(source, phase, context, mark) {
  if (source !== "") load(source);
  marker = mark;
  wantsData = slice(phase, 0, 3) === "pre";
  // With `?` behind the phase, it is looked for changes that are lost.
  const watches = charAt(phase, phase.length - 1) === "?";
  if (watches) phase = slice(phase, 0, -1);
  try {
    if (program !== null) {
      const loaded = program;
      program = null;
      handlers = loaded();
    }
    const handler = handlers[phase] ?? handlers.default;
    // Text, or what was made of it.
    given = typeof context === "string" ? parse(context) : context;
    watched = watches ? { after: given.after, was: stringify(given.after) } : null;
    given.read = read;
    given.write = write;
    given.fetch = fetch;
    given.run = runProgram;
    given.secret = secret;
    given.log = log;
    if (typeof handler !== "function") {
      throw new NativeTypeError(`the export ${phase} is ${handler === undefined ? "missing" : "no function"}`);
    }
    const returned = handler(given);
    if (returned !== null && typeof returned === "object" && (isPromise(returned) || typeof returned.then === "function")) {
      pending = returned;
      return null;
    }
    return answer(returned);
  } catch (error) {
    return failure(error);
  }
}

// Also where the hook took `then` off all promises: what an async function gives is no data.
function isPromise(value) {
  return getPrototypeOf(value) === promisePrototype;
}

export function settle() {
  const returned = pending;
  pending = null;
  const settled = new NativePromise((done) => {
    const resolved = (value) => done(fulfilled(value));
    const rejected = (error) => done(failure(error));
    try {
      // A promise, most of the time.
      promiseThen(withoutSpecies(returned), resolved, rejected);
    } catch {
      // Any other thenable is adopted, in a microtask of its own.
      promiseThen(withoutSpecies(new NativePromise((resolve) => resolve(returned))), resolved, rejected);
    }
  });
  defineProperty(settled, "then", { value: nativeThen });
  return withoutSpecies(settled);
}

// What a promise brought.
function fulfilled(value) {
  try {
    return answer(value);
  } catch (error) {
    return failure(error);
  }
}

function answer(value) {
  const left = leftBehind();
  if (!wantsData || value === undefined || value === null) return (hasLostChange() ? "l" : "a") + left;
  let text;
  try {
    const fault = faultOf(value);
    given = null;
    if (fault !== undefined) return "t" + left + cut(fault);
    text = marker === "" ? stringify(value) : stringify(value, markInfinite);
  } catch (error) {
    return "j" + left + stringify(describe(error));
  }
  if (text === undefined) return "t" + left + "nothing that JSON can hold" + EXPECTED;
  if (text.length > ANSWER_LENGTH_MAX) return "o" + left + text.length;
  return "m" + left + text;
}

// Whether the handler changed `after`, which it did not return.
function hasLostChange() {
  if (watched === null) return false;
  const { after, was } = watched;
  watched = null;
  try {
    return stringify(after) !== was;
  } catch {
    return true;
  }
}

function markInfinite(name, value) {
  return value === Infinity ? marker + "+" : value === -Infinity ? marker + "-" : value;
}

function failure(error) {
  const left = leftBehind();
  given = null;
  let rejection;
  try {
    rejection = readReject(error);
  } catch {
    // Not readable: reported like anything else that is thrown.
  }
  if (rejection !== undefined) return "r" + left + stringify(rejection);
  return "e" + left + stringify(describe(error));
}

function leftBehind() {
  return timers.length > 0 ? "1" : "0";
}

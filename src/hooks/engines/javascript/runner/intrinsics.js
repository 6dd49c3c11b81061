// What the runner needs of the language, taken before any hook's source runs: a hook may overwrite `JSON`, `Promise` or
// `Array.prototype`, and then it changes its own world, not the runner's. Code on the way of every call (main.js,
// timers.js, capabilities.js) uses these and no method, iteration or spread that looks anything up on a prototype.

const globals = globalThis;
const uncurry = Function.prototype.bind.bind(Function.prototype.call);
const { parse, stringify } = JSON;
const {
  defineProperty, defineProperties, keys: objectKeys, getPrototypeOf, prototype: ObjectPrototype,
} = Object;
const NativePromise = Promise;
const promisePrototype = Promise.prototype;
const nativeThen = promisePrototype.then;
const promiseThen = uncurry(nativeThen);
const NativeError = Error;
const NativeTypeError = TypeError;
const NativeRangeError = RangeError;
const NativeMap = Map;
const NativeSet = Set;
const NativeDate = Date;
const NativeRegExp = RegExp;
const NativeArrayBuffer = ArrayBuffer;
const NativeUint8Array = Uint8Array;
const NativeString = String;
const { isArray } = Array;
const { isView } = ArrayBuffer;
const { floor, trunc, min, max } = Math;
const { isFinite: isFiniteNumber } = Number;
const now = Date.now;
const slice = uncurry(String.prototype.slice);
const charAt = uncurry(String.prototype.charAt);
const toWellFormed = uncurry(String.prototype.toWellFormed);
const objectToString = uncurry(Object.prototype.toString);
const hasOwn = uncurry(Object.prototype.hasOwnProperty);
const dateToISOString = uncurry(Date.prototype.toISOString);
const indirectEval = eval;

// As a method: not enumerable, and the author may replace it.
function define(target, name, value) {
  defineProperty(target, name, { value, writable: true, enumerable: false, configurable: true });
}

// `then` asks a promise for its constructor, which the hook may have replaced; where there is none it uses its own.
function withoutSpecies(promise) {
  return defineProperty(promise, "constructor", { value: undefined });
}

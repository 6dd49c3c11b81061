// DOMException, Event, EventTarget, AbortController and AbortSignal: as much as cancelling a fetch needs.

const DOM_CODES = { NotFoundError: 8, NotSupportedError: 9, InvalidStateError: 11, SyntaxError: 12, AbortError: 20,
  QuotaExceededError: 22, TimeoutError: 23, DataCloneError: 25, InvalidCharacterError: 5 };

class DOMException extends NativeError {
  #name;

  constructor(message = "", name = "Error") {
    super(`${message}`);
    this.#name = `${name}`;
  }

  get name() {
    return this.#name;
  }

  get code() {
    return DOM_CODES[this.#name] ?? 0;
  }
}

class Event {
  constructor(type, { cancelable = false } = {}) {
    this.type = `${type}`;
    this.cancelable = !!cancelable;
    this.defaultPrevented = false;
    this.target = null;
  }

  preventDefault() {
    this.defaultPrevented = this.cancelable;
  }
}

class EventTarget {
  #listeners = [];

  addEventListener(type, listener, options) {
    if (!listener || this.#listeners.some((row) => row.type === type && row.listener === listener)) return;
    this.#listeners.push({ type, listener, once: typeof options === "object" && !!options?.once });
  }

  removeEventListener(type, listener) {
    this.#listeners = this.#listeners.filter((row) => row.type !== type || row.listener !== listener);
  }

  dispatchEvent(event) {
    event.target = this;
    const handler = this["on" + event.type];
    if (typeof handler === "function") report(() => handler.call(this, event));
    for (const { type, listener, once } of [...this.#listeners]) {
      if (type !== event.type) continue;
      if (once) this.removeEventListener(type, listener);
      report(() => (typeof listener === "function" ? listener.call(this, event) : listener.handleEvent(event)));
    }
    return !event.defaultPrevented;
  }
}

// A callback that throws has nobody to throw to.
function report(callback) {
  try {
    callback();
  } catch (error) {
    hostLog(3, toWellFormed("a callback threw: " + inspect(error)));
  }
}

const SIGNAL = {};

class AbortSignal extends EventTarget {
  #aborted = false;
  #reason = undefined;
  // When it aborts by itself, in milliseconds since 1970.
  #deadline = Infinity;
  #handler = null;
  #watched = false;

  constructor(key) {
    super();
    if (key !== SIGNAL) throw new NativeTypeError("use an AbortController");
  }

  get onabort() {
    return this.#handler;
  }

  set onabort(handler) {
    this.#handler = handler;
    this.#watch();
  }

  addEventListener(type, listener, options) {
    super.addEventListener(type, listener, options);
    if (type === "abort") this.#watch();
  }

  // A deadline needs a timer once somebody wants to hear of it; until then the clock is looked at when it is asked for.
  #watch() {
    if (this.#watched || this.#aborted || this.#deadline === Infinity) return;
    this.#watched = true;
    addTimer(() => this.aborted, floor(this.#deadline - now()) + 1, [], false, false);
  }

  static abort(reason) {
    const signal = new AbortSignal(SIGNAL);
    signal.#abort(reason);
    return signal;
  }

  static timeout(milliseconds) {
    const signal = new AbortSignal(SIGNAL);
    signal.#deadline = now() + milliseconds;
    return signal;
  }

  static any(signals) {
    const signal = new AbortSignal(SIGNAL);
    for (const other of signals) {
      if (other.aborted) {
        signal.#abort(other.reason);
        break;
      }
      signal.#deadline = min(signal.#deadline, other.#deadline);
      other.addEventListener("abort", () => signal.#abort(other.reason), { once: true });
    }
    return signal;
  }

  get aborted() {
    if (!this.#aborted && now() >= this.#deadline) {
      this.#abort(new DOMException("the time of the signal is over", "TimeoutError"));
    }
    return this.#aborted;
  }

  get reason() {
    return this.aborted ? this.#reason : undefined;
  }

  throwIfAborted() {
    if (this.aborted) throw this.#reason;
  }

  #abort(reason) {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#reason = reason === undefined ? new DOMException("the operation was aborted", "AbortError") : reason;
    this.dispatchEvent(new Event("abort"));
  }

  static abortOf(signal, reason) {
    signal.#abort(reason);
  }

  // For the runner, which minds the deadline itself.
  static listenOf(signal, listener) {
    EventTarget.prototype.addEventListener.call(signal, "abort", listener, { once: true });
  }

  // Milliseconds until it aborts by itself.
  static leftOf(signal) {
    return signal.#deadline - now();
  }
}

const abortSignal = AbortSignal.abortOf;
const signalLeft = AbortSignal.leftOf;
const signalListen = AbortSignal.listenOf;
delete AbortSignal.abortOf;
delete AbortSignal.listenOf;
delete AbortSignal.leftOf;

class AbortController {
  #signal = new AbortSignal(SIGNAL);

  get signal() {
    return this.#signal;
  }

  abort(reason) {
    abortSignal(this.#signal, reason);
  }
}

define(globals, "DOMException", DOMException);
define(globals, "Event", Event);
define(globals, "EventTarget", EventTarget);
define(globals, "AbortSignal", AbortSignal);
define(globals, "AbortController", AbortController);

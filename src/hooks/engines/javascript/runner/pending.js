// A host call that goes on beside the handler as a promise, which `await` waits for; who uses what it brings without `await`
// waits at that moment.

const WAITING = 0, FULFILLED = 1, REJECTED = 2;

class Pending {
  #state = WAITING;
  #result = undefined;
  #call = null;
  #resolve = null;
  #reject = null;

  // The promise has the members of what it will be, each read by `get(result, name)`.
  constructor(members, get) {
    hostObserve(1);
    this.promise = new NativePromise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    for (let index = 0; index < members.length; index++) {
      const name = members[index];
      const read = () => get(this.#wait(), name);
      defineProperty(this.promise, name, { get: read, configurable: true });
    }
  }

  // `make` makes the result of what the host answers.
  start(operation, text, bytes, make) {
    this.#call = startCall(operation, text, bytes, (answer, first, second) => this.#settle(() => make(answer, first, second)));
  }

  fail(error) {
    this.#settle(() => { throw error; });
  }

  // `why` throws the reason.
  abort(why) {
    if (this.#state !== WAITING) return;
    this.#call.cancel();
    this.#settle(why);
  }

  #settle(make) {
    if (this.#state !== WAITING) return;
    try {
      this.#result = make();
      this.#state = FULFILLED;
    } catch (error) {
      this.#result = error;
      this.#state = REJECTED;
    }
    if (this.#state === FULFILLED) this.#resolve(this.#result);
    else this.#reject(this.#result);
  }

  #wait() {
    if (this.#state === WAITING) this.#call.finish();
    if (this.#state === REJECTED) {
      // Here it is told: the promise need not be awaited as well.
      promiseThen(this.promise, undefined, () => {});
      throw this.#result;
    }
    return this.#result;
  }
}

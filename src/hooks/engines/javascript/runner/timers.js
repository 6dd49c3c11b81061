// setTimeout and its kin. The engine asks when the next one is `due`, waits, and calls `wake`: while an async handler waits,
// and once more when the handler has answered, until no timer is left that holds the call.

let timers = [];
let timerSequence = 0;

const TIMER_MAX = 0x7fffffff;

// A call waits for its timers, but not for those of signals: they `hold` nothing.
function addTimer(callback, delay, args, every, holds) {
  if (typeof callback !== "function") throw new NativeTypeError("a timer needs a function");
  hostObserve(0);
  const number = +delay;
  const milliseconds = number > 0 ? min(trunc(number), TIMER_MAX) : 0;
  const timer = { id: ++timerSequence, due: now() + milliseconds, every: every ? max(milliseconds, 1) : 0, callback, args, holds };
  timers[timers.length] = timer;
  return timer.id;
}

function removeTimer(id) {
  let kept = 0;
  for (let index = 0; index < timers.length; index++) {
    const timer = timers[index];
    if (timer.id !== id) timers[kept++] = timer;
  }
  timers.length = kept;
}

// Milliseconds until the next timer; negative if there is none, or none that holds a call whose handler has answered.
function due(hasAnswered) {
  if (timers.length === 0) return -1;
  let first = Infinity;
  let holds = !hasAnswered;
  for (let index = 0; index < timers.length; index++) {
    first = min(first, timers[index].due);
    holds ||= timers[index].holds;
  }
  return holds ? max(0, first - now()) : -1;
}

// Time has passed.
function wake() {
  // Timers that callbacks add wait for the next turn, or they would starve everything else.
  const last = timerSequence;
  const present = now();
  for (;;) {
    let next = null;
    for (let index = 0; index < timers.length; index++) {
      const timer = timers[index];
      if (timer.due > present || timer.id > last) continue;
      if (next === null || timer.due < next.due) next = timer;
    }
    if (next === null) break;
    if (next.every > 0) next.due = present + next.every;
    else removeTimer(next.id);
    fire(next.callback, next.args);
  }
}

// What a callback throws fails the call as a promise does that is rejected and has no handler: nobody is there to catch it.
function fire(callback, args) {
  try {
    args.length === 0 ? callback() : callback(...args);
  } catch (error) {
    new NativePromise((resolve, reject) => reject(error));
  }
}

define(globals, "setTimeout", (callback, delay, ...args) => addTimer(callback, delay, args, false, true));
define(globals, "setInterval", (callback, delay, ...args) => addTimer(callback, delay, args, true, true));
define(globals, "setImmediate", (callback, ...args) => addTimer(callback, 0, args, false, true));
define(globals, "clearTimeout", removeTimer);
define(globals, "clearInterval", removeTimer);
define(globals, "clearImmediate", removeTimer);
define(globals, "queueMicrotask", (callback) => {
  if (typeof callback !== "function") throw new NativeTypeError("a microtask needs a function");
  promiseThen(withoutSpecies(new NativePromise((resolve) => resolve())), () => fire(callback, []));
});

// performance counts from when a sandbox is first asked for it.
let timeOrigin = 0;

function originOfTime() {
  if (timeOrigin === 0) timeOrigin = now();
  return timeOrigin;
}

define(globals, "performance", {
  now() {
    const origin = originOfTime();
    return now() - origin;
  },
  get timeOrigin() {
    return originOfTime();
  },
  toJSON() {
    return { timeOrigin: originOfTime() };
  },
});

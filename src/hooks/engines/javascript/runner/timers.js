// setTimeout and its kin. They run while an async handler waits; what is left when it has answered is given up.

let timers = [];
let timerSequence = 0;
// Whether a task is there that the host's futures can wake.
let inTask = false;
// When the earliest wait that is under way ends.
let wakesAt = Infinity;
let waits = 0;

const TIMER_MAX = 0x7fffffff;

function addTimer(callback, delay, args, every) {
  if (typeof callback !== "function") throw new NativeTypeError("a timer needs a function");
  const number = +delay;
  const milliseconds = number > 0 ? min(trunc(number), TIMER_MAX) : 0;
  const timer = { id: ++timerSequence, due: now() + milliseconds, every: every ? max(milliseconds, 1) : 0, callback, args };
  timers[timers.length] = timer;
  if (inTask) arm();
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

// Sees to it that the host wakes us for the next timer.
function arm() {
  let due = Infinity;
  for (let index = 0; index < timers.length; index++) due = min(due, timers[index].due);
  if (due >= wakesAt) return;
  wakesAt = due;
  waits++;
  promiseThen(withoutSpecies(hostWait(max(0, due - now())).read()), wake, wake);
}

function wake() {
  waits--;
  wakesAt = Infinity;
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
    fire(next);
  }
  arm();
}

function fire(timer) {
  try {
    const { callback, args } = timer;
    args.length === 0 ? callback() : callback(...args);
  } catch (error) {
    hostLog(3, toWellFormed("a timer's callback threw: " + inspect(error)));
  }
}

define(globals, "setTimeout", (callback, delay, ...args) => addTimer(callback, delay, args, false));
define(globals, "setInterval", (callback, delay, ...args) => addTimer(callback, delay, args, true));
define(globals, "setImmediate", (callback, ...args) => addTimer(callback, 0, args, false));
define(globals, "clearTimeout", removeTimer);
define(globals, "clearInterval", removeTimer);
define(globals, "clearImmediate", removeTimer);
if (typeof globals.queueMicrotask !== "function") {
  define(globals, "queueMicrotask", (callback) => {
    promiseThen(NativePromise.resolve(), () => report(callback));
  });
}

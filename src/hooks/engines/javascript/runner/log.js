// log.* and console.*: lines of the hook's log.

function writeLine(level, args) {
  let line = "";
  for (let index = 0; index < args.length; index++) {
    if (index > 0) line += " ";
    line += inspect(args[index]);
  }
  hostLog(level, toWellFormed(line));
}

const log = {
  debug() {
    writeLine(0, arguments);
  },
  info() {
    writeLine(1, arguments);
  },
  warn() {
    writeLine(2, arguments);
  },
  error() {
    writeLine(3, arguments);
  },
};

const counts = {};
const consoleTimes = {};

define(globals, "console", {
  log: log.info,
  info: log.info,
  debug: log.debug,
  trace: log.debug,
  dir: log.info,
  table: log.info,
  group: log.info,
  groupCollapsed: log.info,
  groupEnd() {},
  warn: log.warn,
  error: log.error,
  assert(condition, ...args) {
    if (!condition) log.error("assertion failed:", ...args);
  },
  count(label = "default") {
    counts[label] = (counts[label] ?? 0) + 1;
    log.info(`${label}: ${counts[label]}`);
  },
  time(label = "default") {
    consoleTimes[label] = now();
  },
  timeEnd(label = "default") {
    log.info(`${label}: ${now() - consoleTimes[label]} ms`);
  },
});
define(globals, "print", log.info);

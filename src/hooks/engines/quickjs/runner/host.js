// The way to the host: functions of the module (src/functions.rs), and what they lack to be what the scripts expect.

const {
  log: hostLog, url: hostUrl, digest: hostDigest, random: hostRandom, encode: hostEncode, decode: hostDecode,
  observe: hostObserve,
} = host;

function hostAsk(operation, args) {
  return host.ask(operation + "\n" + args);
}

// What awaits the host calls that are under way, by their numbers.
const awaited = { __proto__: null };
const OPERATIONS = { __proto__: null, send: 0, execute: 1 };

// Starts a host call; `done` gets its text and bytes when they are there.
function hostStart(operation, text, bytes, done) {
  const call = host.start(OPERATIONS[operation], text, bytes);
  awaited[call] = done;
  return {
    // Waits for it, and for nothing else.
    finish() {
      if (awaited[call] !== undefined) host.join(call, arrived);
    },
    cancel() {
      if (awaited[call] === undefined) return;
      delete awaited[call];
      host.cancel(call);
    },
  };
}

// The program's end is waited for; what goes on beside goes on.
function hostExecute(command, stdin) {
  let parts;
  hostStart("execute", command, stdin, (text, stdout, stderr) => { parts = [text, stdout, stderr]; }).finish();
  return parts;
}

function arrived(call, text, first, second) {
  const done = awaited[call];
  delete awaited[call];
  done(text, first, second);
}

// What nobody caught fails the call, as a promise does that is rejected and has no handler (src/rejections.rs).
function hostFail(error) {
  new NativePromise((resolve, reject) => reject(error));
}

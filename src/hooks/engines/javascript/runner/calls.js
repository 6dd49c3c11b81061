// Host calls that go on beside the script, by their numbers. What one brings goes to `arrived`.

// As the server numbers the operations.
const SEND = 0, EXECUTE = 1;

// What awaits each call.
const awaited = { __proto__: null };
let awaitedCount = 0;

// `done` gets the text and the bytes of the answer when they are there.
function startCall(operation, text, bytes, done) {
  const call = hostStart(operation, text, bytes);
  awaited[call] = done;
  awaitedCount += 1;
  return {
    // Waits for it, and for nothing else.
    finish() {
      if (awaited[call] !== undefined) hostJoin(call);
    },
    cancel() {
      if (forget(call) !== undefined) hostCancel(call);
    },
  };
}

// The end of the program is waited for; what goes on beside goes on.
function execute(command, stdin) {
  let parts;
  startCall(EXECUTE, command, stdin, (text, stdout, stderr) => { parts = [text, stdout, stderr]; }).finish();
  return parts;
}

function arrived(call, text, first, second) {
  forget(call)(text, first, second);
}

// What awaited the call, if anything does.
function forget(call) {
  const done = awaited[call];
  if (done === undefined) return undefined;
  delete awaited[call];
  awaitedCount -= 1;
  return done;
}

// The turns of a call. V8 runs microtasks between two of them, so each tells what is to come: a text is the answer, null
// asks for another turn, and undefined says that nothing is left that could bring the answer.

let settled;

// In the zygote this never returns: each child goes on from here.
function serve() {
  head[2] = 0;
  act(SERVE, 0);
  act(LOAD, 0);
  const isCheck = head[1] === 1;
  const source = takeText(0);
  if (isCheck) return check(source) ?? "";
  load(source);
  return next();
}

// A process that is put back into its first state goes on in here.
function next() {
  head[2] = 0;
  act(NEXT, 0);
  const phase = takeText(0);
  const marker = takeText(1);
  const given = takeText(2);
  settled = undefined;
  thrown = null;
  const answered = run("", phase, given, marker);
  if (answered === null) promiseThen(settle(), (text) => { settled = text; });
  else settled = answered;
  // What the handler left to promises runs first.
  return null;
}

function turn() {
  const milliseconds = due(settled !== undefined);
  if (milliseconds < 0) return ending();
  head[2] = 0;
  act(WAIT, milliseconds);
  wake();
  return null;
}

// The answer, or what went wrong beside it.
function ending() {
  if (thrown === null || (settled !== undefined && isFailure(settled))) return settled;
  return failure(thrown.error);
}

function isFailure(text) {
  const kind = charAt(text, 0);
  return kind === "e" || kind === "r";
}

// What every call goes through is compiled before the first fork.
(function warmUp() {
  const source = "(function () { 'use strict'; return { __proto__: null, preCreate: async ({ after }) => ({ ...after, n: 1 }) }; })";
  for (let round = 0; round < 3; round++) {
    run(source, "preCreate", '{"after":{"a":[1,"x"]}}', "");
    pending = null;
    answer({ a: 1 });
    try {
      run("(function () { throw new Reject('no', { '/a': 'b' }); })", "preCreate", "{}", "");
    } catch {}
  }
  handlers = null;
})();

return [shared, serve, turn, next];
})()

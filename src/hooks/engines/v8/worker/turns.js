// The turns of a call. What is left to promises runs after each, so each tells what is to come: a text is the answer, unless
// something may be left of the call by then (head 5 and 6); null asks for another turn, and undefined says that nothing is left that
// could bring the answer.

let settled;
let lost;

// In the zygote this never returns: each child goes on from here.
function serve() {
  globalThis.__snaphook = (reason) => { lost = reason; };
  act(ACT_WATCH, 0);
  delete globalThis.__snaphook;
  head[2] = 0;
  act(ACT_SERVE, 0);
  act(ACT_LOAD, 0);
  const isCheck = head[1] === 1;
  const source = takeText(0);
  if (isCheck) return check(source) ?? "";
  load(source);
  return next();
}

// A process that is put back into its first state goes on in here.
function next() {
  head[2] = 0;
  act(ACT_NEXT, 0);
  const phase = takeText(0);
  const marker = takeText(1);
  const given = takeText(2);
  head[5] = 0;
  settled = undefined;
  const answered = run("", phase, given, marker);
  if (answered === null) {
    promiseThen(settle(), (text) => { settled = text; });
    return null;
  }
  settled = answered;
  return answered;
}

// What the handler left behind is done before the call is: promises, host calls and timers.
function turn() {
  head[5] = 0;
  const milliseconds = due(settled !== undefined);
  if (milliseconds < 0 && awaitedCount === 0) return ending();
  if (!waitForAny(milliseconds)) wake();
  return null;
}

// The answer, or why a promise was rejected that has no handler: those whose handler came later are none of them.
function ending() {
  if (head[6] === 0) return settled;
  act(ACT_REJECTIONS, 0);
  return settled !== undefined && isFailure(settled) ? settled : failure(lost);
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

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
  const answered = run("", phase, given, marker);
  if (answered !== null) return answered;
  promiseThen(settle(), (text) => { settled = text; });
  return null;
}

function turn() {
  if (settled !== undefined) return settled;
  let first = -1;
  for (let index = 0; index < sleepers.length; index++) {
    if (first < 0 || sleepers[index].due < sleepers[first].due) first = index;
  }
  if (first < 0) return undefined;
  const sleeper = sleepers[first];
  const rest = [];
  for (let index = 0; index < sleepers.length; index++) if (index !== first) rest[rest.length] = sleepers[index];
  sleepers = rest;
  head[2] = 0;
  act(WAIT, max(0, sleeper.due - now()));
  sleeper.wakeUp();
  return null;
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

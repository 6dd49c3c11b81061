// The suite's hook for Javy: one module for all tasks and phases. The id of the context's `actor` chooses the task; the context's
// `id` is the task's parameter. Standard error is the hook's log.

function readInput() {
  const parts = [];
  let bytes = 0;
  for (;;) {
    const part = new Uint8Array(65536);
    const count = Javy.IO.readSync(0, part);
    if (count <= 0) break;
    parts.push(part.subarray(0, count));
    bytes += count;
  }
  const all = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return new TextDecoder().decode(all);
}

const write = (file, text) => Javy.IO.writeSync(file, new TextEncoder().encode(text));
const answer = (value) => write(1, JSON.stringify(value));
const info = (line) => write(2, `${line}\n`);

const ctx = JSON.parse(readInput());

function deep() {
  return deep() + 1;
}

// An older server sends only the id.
const task = ctx.actor?.id ?? ctx.actor;
switch (task) {
  case "accept":
    answer({ accept: true });
    break;
  case "amend":
    answer({ amend: { n: 1 } });
    break;
  case "reject":
    answer({ reject: "no", fields: { "/a": "bad" } });
    break;
  case "fail":
    throw new Error("oops");
  case "crash":
    null.member;
    break;
  case "same":
    answer({ amend: ctx.after });
    break;
  case "add":
    answer({ amend: { ...ctx.after, x: 1 } });
    break;
  case "tell": {
    const shown = (value) => (value === null ? "none" : JSON.stringify(value));
    info(`${ctx.phase} ${ctx.model.id}@${ctx.model.version} ${ctx.id}`);
    info(`${ctx.requestId} ${ctx.time} ${ctx.attempt}`);
    info(`before ${shown(ctx.before)}`);
    info(`after ${shown(ctx.after)}`);
    info(`event ${ctx.event ? `${ctx.event.position} ${ctx.event.id}` : "none"}`);
    answer({ accept: true });
    break;
  }
  case "loop":
    for (;;);
  case "grow":
    for (const all = []; ; ) all.push(new Array(1000).fill(1));
  case "recurse":
    deep();
    break;
  case "flood":
    answer({ amend: { text: "x".repeat(20000000) } });
    break;
  case "talk":
    for (;;) info("x");
  case "shout":
    for (const line = "x".repeat(8000); ; ) info(line);
  case "count":
    globalThis.calls = (globalThis.calls ?? 0) + 1;
    answer({ amend: { n: globalThis.calls } });
    break;
  default:
    throw new Error(`no task ${task}`);
}

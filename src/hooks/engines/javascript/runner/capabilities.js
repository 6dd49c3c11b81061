// What a grant opens, as JavaScript sees it. Every call ends in the server, which checks the grant.

class AccessError extends NativeError {
  constructor({ code, message }) {
    super(message);
    define(this, "code", code);
  }
}
define(AccessError.prototype, "name", "AccessError");

function answerOf(text) {
  const body = slice(text, 1);
  if (charAt(text, 0) === "+") return body === "" ? undefined : parse(body);
  throw new AccessError(parse(body));
}

function ask(operation, args) {
  return answerOf(hostAsk(operation, stringify(args)));
}

const read = {
  get: (model, id) => ask("read.get", [model, id]),
  query: (model, query) => ask("read.query", [model, query ?? {}]),
  event: (position) => ask("read.event", [position]),
};

const write = {
  create: (model, data, options) => ask("write.create", [model, data, options?.id ?? null]),
  update: (model, id, data, options) => ask("write.update", [model, id, data, options?.expected ?? null]),
  delete: (model, id, options) => ask("write.delete", [model, id, options?.expected ?? null]),
};

function secret(name) {
  return ask("secret.get", [name]);
}

function runProgram(program, args, options) {
  const { stdin, env, timeout } = options ?? {};
  const input = stdin === undefined || stdin === null ? new NativeUint8Array(0)
    : typeof stdin === "string" ? hostEncode(toWellFormed(stdin)) : toBytes(stdin);
  const command = stringify({ program, args: args ?? [], env: env ?? {}, timeout: timeout ?? null });
  const answer = execute(command, input);
  const code = answerOf(answer[0]);
  return { code, stdout: hostDecode(answer[1], false), stderr: hostDecode(answer[2], false) };
}

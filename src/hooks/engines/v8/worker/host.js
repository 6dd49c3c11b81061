// The way to the host, and the way of a worker through its calls. The whole runner is one function, so that nothing of it
// is a hook's to see. Texts and bytes cross in a buffer that both sides have; `callHost` takes and gives nothing itself.
//
// head: 0 operation · 1 number, or whether there is an answer · 2 length of what stands in the buffer · 3 whether more of it
// follows · 4 slot

(function () {
"use strict";

const callHost = globalThis.__snaphook;
delete globalThis.__snaphook;
// A second way to run code, with memory that JavaScript's limit does not see.
delete globalThis.WebAssembly;

const SERVE = 1, NEXT = 2, TAKE = 3, TEXT = 4, BYTES = 5, LOG = 6, ASK = 7, SEND = 8, EXECUTE = 9, URL_ = 10, DIGEST = 11,
  RANDOM = 12, ENCODE = 13, DECODE = 14, WAIT = 15, LOAD = 16;
const HEAD_BYTES = 64;
const CHUNK_BYTES = 65536;
const CHUNK_UNITS = 8192;

const shared = new SharedArrayBuffer(HEAD_BYTES + CHUNK_BYTES);
const head = new Int32Array(shared, 0, 16);
const units = new Uint16Array(shared, HEAD_BYTES, CHUNK_UNITS);
const chunk = new Uint8Array(shared, HEAD_BYTES, CHUNK_BYTES);
const SharedUint16Array = Uint16Array;
const SharedUint8Array = Uint8Array;
const reflectApply = Reflect.apply;
const fromCharCode = String.fromCharCode;
const charCodeAt = Function.prototype.bind.bind(Function.prototype.call)(String.prototype.charCodeAt);
const setBytes = Function.prototype.bind.bind(Function.prototype.call)(Uint8Array.prototype.set);
const setOwn = Object.defineProperty;

function withLength(view, length) {
  return setOwn(view, "length", { value: length });
}
withLength(units, CHUNK_UNITS);

function act(operation, number) {
  head[0] = operation;
  head[1] = number;
  callHost();
}

// All but the last piece of a text go ahead of the operation; the last goes with it.
function giveText(text, operation, number) {
  let start = 0;
  while (text.length - start > CHUNK_UNITS) {
    putUnits(text, start, start + CHUNK_UNITS);
    act(TEXT, 0);
    start += CHUNK_UNITS;
  }
  putUnits(text, start, text.length);
  act(operation, number);
}

function putUnits(text, start, end) {
  for (let index = start; index < end; index++) units[index - start] = charCodeAt(text, index);
  head[2] = end - start;
}

function giveBytes(data) {
  for (let start = 0; start < data.length; start += CHUNK_BYTES) {
    const length = data.length - start < CHUNK_BYTES ? data.length - start : CHUNK_BYTES;
    setBytes(chunk, new SharedUint8Array(data.buffer, data.byteOffset + start, length));
    head[2] = length;
    act(BYTES, 0);
  }
}

function takeText(slot) {
  let text = "";
  do {
    head[4] = slot;
    act(TAKE, 0);
    const length = head[2];
    if (length === CHUNK_UNITS) text += reflectApply(fromCharCode, undefined, units);
    else if (length > 0) {
      text += reflectApply(fromCharCode, undefined, withLength(new SharedUint16Array(shared, HEAD_BYTES, length), length));
    }
  } while (head[3] === 1);
  return text;
}

function takeBytes(slot) {
  head[4] = slot;
  act(TAKE, 1);
  const data = new SharedUint8Array(head[1]);
  let start = 0;
  for (;;) {
    const length = head[2];
    setBytes(data, new SharedUint8Array(shared, HEAD_BYTES, length), start);
    start += length;
    if (head[3] === 0) return data;
    head[4] = slot;
    act(TAKE, 1);
  }
}

function hostLog(level, message) {
  giveText(message, LOG, level);
}

function hostAsk(operation, args) {
  giveText(operation + "\n" + args, ASK, 0);
  return takeText(0);
}

function hostSend(request, body) {
  giveBytes(body);
  giveText(request, SEND, 0);
  return [takeText(0), takeBytes(1)];
}

function hostExecute(command, stdin) {
  giveBytes(stdin);
  giveText(command, EXECUTE, 0);
  return [takeText(0), takeBytes(1), takeBytes(2)];
}

// Here a host call is over before the script goes on.
const DONE_CALL = { finish() {}, cancel() {} };

function hostStart(operation, text, bytes, done) {
  const parts = operation === "send" ? hostSend(text, bytes) : hostExecute(text, bytes);
  done(parts[0], parts[1], parts[2]);
  return DONE_CALL;
}

// The source runs at each call: there is nothing to observe.
function hostObserve() {}

function hostUrl(args) {
  giveText(args, URL_, 0);
  return takeText(0);
}

function hostDigest(algorithm, data) {
  giveBytes(data);
  giveText(algorithm, DIGEST, 0);
  return takeBytes(0);
}

function hostRandom(count) {
  head[2] = 0;
  act(RANDOM, count);
  return takeBytes(0);
}

function hostEncode(text) {
  giveText(text, ENCODE, 0);
  return takeBytes(0);
}

function hostDecode(data, fatal) {
  giveBytes(data);
  head[2] = 0;
  act(DECODE, fatal ? 1 : 0);
  return head[1] === 0 ? undefined : takeText(0);
}

// What a callback threw that nobody caught; the first counts.
let thrown = null;

function hostFail(error) {
  thrown ??= { error };
}


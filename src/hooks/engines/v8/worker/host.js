// The way to the host, and the way of a worker through its calls. The whole runner is one function, so that nothing of it
// is a hook's to see. Texts and bytes cross in a buffer that both sides have; `callHost` takes and gives nothing itself.
//
// head: 0 operation · 1 number, or whether there is an answer · 2 length of what stands in the buffer · 3 whether more of it
// follows · 4 slot · 5 whether something may be left of the call after its answer · 6 number of promises that are rejected and have
// no handler

(function () {
"use strict";

const callHost = globalThis.__snaphook;
delete globalThis.__snaphook;
// A second way to run code, with memory that JavaScript's limit does not see.
delete globalThis.WebAssembly;

const ACT_SERVE = 1, ACT_LOAD = 2, ACT_NEXT = 3, ACT_TAKE = 4, ACT_TEXT = 5, ACT_BYTES = 6, ACT_LOG = 7, ACT_ASK = 8,
  ACT_START = 9, ACT_WAIT = 10, ACT_JOIN = 11, ACT_CANCEL = 12, ACT_URL = 13, ACT_DIGEST = 14, ACT_RANDOM = 15, ACT_ENCODE = 16,
  ACT_DECODE = 17, ACT_WATCH = 18, ACT_REJECTIONS = 19;
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
    act(ACT_TEXT, 0);
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
    act(ACT_BYTES, 0);
  }
}

function takeText(slot) {
  let text = "";
  do {
    head[4] = slot;
    act(ACT_TAKE, 0);
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
  act(ACT_TAKE, 1);
  const data = new SharedUint8Array(head[1]);
  let start = 0;
  for (;;) {
    const length = head[2];
    setBytes(data, new SharedUint8Array(shared, HEAD_BYTES, length), start);
    start += length;
    if (head[3] === 0) return data;
    head[4] = slot;
    act(ACT_TAKE, 1);
  }
}

function hostLog(level, message) {
  giveText(message, ACT_LOG, level);
}

function hostAsk(operation, args) {
  giveText(operation + "\n" + args, ACT_ASK, 0);
  return takeText(0);
}

// What is refused throws why.
function hostStart(operation, text, bytes) {
  giveBytes(bytes);
  giveText(text, ACT_START, operation);
  const call = head[1];
  if (call === 0) answerOf(takeText(0));
  return call;
}

function hostJoin(call) {
  head[2] = 0;
  act(ACT_JOIN, call);
  arrive(call);
}

// Waits for any call, or so many milliseconds; without end if they are negative. Whether a call has arrived.
function waitForAny(milliseconds) {
  head[2] = 0;
  act(ACT_WAIT, milliseconds);
  const call = head[1];
  if (call === 0) return false;
  arrive(call);
  return true;
}

function arrive(call) {
  arrived(call, takeText(0), takeBytes(1), takeBytes(2));
}

function hostCancel(call) {
  head[2] = 0;
  act(ACT_CANCEL, call);
}

// The source runs at each call: all there is to observe is that something may be left of it.
function hostObserve() {
  head[5] = 1;
}

function hostUrl(args) {
  giveText(args, ACT_URL, 0);
  return takeText(0);
}

function hostDigest(algorithm, data) {
  giveBytes(data);
  giveText(algorithm, ACT_DIGEST, 0);
  return takeBytes(0);
}

function hostRandom(count) {
  head[2] = 0;
  act(ACT_RANDOM, count);
  return takeBytes(0);
}

function hostEncode(text) {
  giveText(text, ACT_ENCODE, 0);
  return takeBytes(0);
}

function hostDecode(data, fatal) {
  giveBytes(data);
  head[2] = 0;
  act(ACT_DECODE, fatal ? 1 : 0);
  return head[1] === 0 ? undefined : takeText(0);
}


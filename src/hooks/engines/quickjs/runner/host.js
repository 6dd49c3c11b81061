// The way to the host: functions of the module (src/functions.rs), and what they lack to be what the scripts expect.

const {
  log: hostLog, url: hostUrl, digest: hostDigest, random: hostRandom, encode: hostEncode, decode: hostDecode,
  observe: hostObserve,
} = host;

function hostAsk(operation, args) {
  return host.ask(operation + "\n" + args);
}

function hostStart(operation, text, bytes) {
  return host.start(operation, text, bytes);
}

function hostJoin(call) {
  host.join(call, arrived);
}

function hostCancel(call) {
  host.cancel(call);
}

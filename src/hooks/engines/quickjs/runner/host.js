// The way to the host: functions that are built into this sandbox (runner.wit).

import host from "snaphook:runner/host";

const {
  log: hostLog, ask: hostAsk, send: hostSend, execute: hostExecute, url: hostUrl,
  digest: hostDigest, random: hostRandom, encode: hostEncode, decode: hostDecode, wait: hostWait,
} = host;

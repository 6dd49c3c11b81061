// crypto.randomUUID, getRandomValues, subtle.digest; Math.random with a seed per sandbox.

const HEX = [];
for (let index = 0; index < 256; index++) HEX.push((index + 256).toString(16).slice(1));

const crypto = {
  randomUUID() {
    const bytes = hostRandom(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = "";
    for (let index = 0; index < 16; index++) {
      if (index === 4 || index === 6 || index === 8 || index === 10) text += "-";
      text += HEX[bytes[index]];
    }
    return text;
  },

  getRandomValues(array) {
    if (!isView(array) || array instanceof DataView || array instanceof Float64Array || array instanceof Float32Array) {
      throw new DOMException("expected an array of integers", "TypeMismatchError");
    }
    if (array.byteLength > 65536) {
      throw new DOMException("at most 65536 bytes at once", "QuotaExceededError");
    }
    toBytes(array).set(hostRandom(array.byteLength));
    return array;
  },

  subtle: {
    async digest(algorithm, data) {
      const name = `${typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm}`.toUpperCase();
      const bytes = hostDigest(name, toBytes(data));
      if (bytes.length === 0) {
        throw new DOMException(`${name} is not supported, SHA-1, SHA-256, SHA-384 and SHA-512 are`, "NotSupportedError");
      }
      return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
    },
  },
};

// QuickJS seeds its own when the snapshot is made, so every fresh sandbox would draw the same numbers.
let randomState = null;

function random() {
  if (randomState === null) {
    const seed = hostRandom(16);
    randomState = new Uint32Array(4);
    for (let index = 0; index < 16; index++) randomState[index >> 2] |= seed[index] << ((index & 3) * 8);
    randomState[0] |= 1;
  }
  // xoshiro128** gives 32 bits; two draws make the 53 that a double holds.
  return ((draw() >>> 5) * 67108864 + (draw() >>> 6)) / 9007199254740992;
}

function draw() {
  const s = randomState;
  const m = Math.imul(s[1], 5);
  const result = Math.imul((m << 7) | (m >>> 25), 9);
  const t = s[1] << 9;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = (s[3] << 11) | (s[3] >>> 21);
  return result;
}

define(globals, "crypto", crypto);
define(Math, "random", random);

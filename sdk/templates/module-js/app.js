// {{name}}: requires a user name and a password for every request (HTTP Basic authentication).
// Settings: config = { user = 'me', password = 'secret:door' }
import { settings } from "snaphook:module/config@0.1.0";

export const beforeRequest = {
  handle(request) {
    const sent = request.headers.find((header) => header.name === "authorization");
    if (!sent || !isSame(sent.value, expected())) throw 401;
    // Removed, because the API would take it for a token.
    return ["declined", { headers: [{ tag: "remove", val: "authorization" }] }];
  },
};

export const requestError = {
  handle(request, response) {
    if (response.status !== 401) return undefined;
    const value = bytes('Basic realm="snaphook", charset="UTF-8"');
    return { headers: [{ tag: "set", val: { name: "www-authenticate", value } }] };
  },
};

function expected() {
  const { user, password } = JSON.parse(settings());
  // Without these settings, every request is rejected.
  if (!user || !password) throw 500;
  return bytes(`Basic ${btoa(String.fromCharCode(...bytes(`${user}:${password}`)))}`);
}

// Compares in constant time, so that timing reveals nothing.
function isSame(a, b) {
  return a.length === b.length && a.reduce((difference, byte, at) => difference | (byte ^ b[at]), 0) === 0;
}

function bytes(text) {
  return new TextEncoder().encode(text);
}

// A receiver of webhooks that verifies them with the package of Standard Webhooks.
// `node receiver.mjs KEYS [TLS_KEY TLS_CERTIFICATE]` prints its port, then a line of JSON for each request: which of the keys,
// by their number, verify its signature, and what came. KEYS have commas between. A request that none verifies gets 401.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { Webhook } from "standardwebhooks";

const [keys, tlsKey, tlsCertificate] = process.argv.slice(2);
const verifiers = keys.split(",").map((key) => new Webhook(key));

function answer(request, response) {
  let body = "";
  request.setEncoding("utf8");
  request.on("data", (text) => { body += text; });
  request.on("end", () => {
    const verifies = [];
    verifiers.forEach((verifier, number) => {
      try {
        verifier.verify(body, request.headers);
        verifies.push(number);
      } catch {}
    });
    const { method, url, headers } = request;
    console.log(JSON.stringify({ method, url, headers, verifies, body: JSON.parse(body) }));
    response.writeHead(verifies.length > 0 ? 204 : 401).end();
  });
}

const server = tlsKey === undefined
  ? createServer(answer)
  : createTlsServer({ key: readFileSync(tlsKey), cert: readFileSync(tlsCertificate) }, answer);
server.listen(0, "127.0.0.1", () => console.log(server.address().port));

// A pre hook for Javy: refuses an order of more than a million, and writes the currency in capitals. The context comes as
// JSON on standard input, the verdict goes to standard output, the log to standard error.

function readInput() {
  const parts = [];
  let bytes = 0;
  for (;;) {
    const part = new Uint8Array(4096);
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
  return JSON.parse(new TextDecoder().decode(all));
}

function check({ after }) {
  if (after === null) return { accept: true };
  if (after.total > 1_000_000) return { reject: "at most a million", fields: { "/total": "at most a million" } };
  const currency = after.currency?.toUpperCase();
  return currency === after.currency ? { accept: true } : { amend: { ...after, currency } };
}

Javy.IO.writeSync(1, new TextEncoder().encode(JSON.stringify(check(readInput()))));

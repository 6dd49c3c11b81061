// {{name}}: responds with the caller and the requested path.
import { write } from "snaphook:hook/log@0.1.0";

addEventListener("fetch", (event) => event.respondWith(answer(event.request)));

async function answer(request) {
  const path = new URL(request.url).pathname;
  write("info", `asked for ${path}`);
  // The caller is in headers that clients cannot set.
  const actor = request.headers.get("snaphook-actor") ?? "nobody";
  return Response.json({ hello: actor, path });
}

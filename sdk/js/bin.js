#!/usr/bin/env node
// `npx snaphook-hook build <file>`: bundles a hook's source and everything that it imports into one file.

import path from "node:path";

const USAGE = "usage: snaphook-hook build <file> [--out <file>]";

const [command, ...args] = process.argv.slice(2);
const { entry, out, fault } = read(args);
if (command !== "build" || fault || !entry) {
  console.error(fault ? `error: ${fault}\n${USAGE}` : USAGE);
  process.exit(2);
}
const { build } = await import("./build.js");
try {
  const bytes = await build(entry, out, { log: true });
  console.log(`${out}: ${bytes} bytes`);
} catch (error) {
  // esbuild has already printed its errors.
  console.error(`error: ${error.errors ? `${entry} cannot be bundled` : error.message}`);
  process.exit(1);
}

function read(args) {
  let entry, out;
  for (let index = 0; index < args.length; index++) {
    if (args[index] === "--out" || args[index] === "-o") {
      out = args[++index];
      if (!out) return { fault: "`--out` needs a file" };
    } else if (args[index].startsWith("-")) {
      return { fault: `\`${args[index]}\` is not an option` };
    } else if (entry) {
      return { fault: `expected one file, found \`${entry}\` and \`${args[index]}\`` };
    } else {
      entry = args[index];
    }
  }
  out ??= entry && path.join("dist", `${path.parse(entry).name}.js`);
  return { entry, out };
}

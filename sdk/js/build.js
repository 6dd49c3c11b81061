// Makes one file of a hook's source and everything that it imports.

import { mkdir, rename, writeFile } from "node:fs/promises";
import path from "node:path";

import * as esbuild from "esbuild";

/** Longest source that the server takes. */
export const BYTES_MAX = 1 << 20;

/** How bundles are made; `snaphook hook build` makes them in the same way. */
export const OPTIONS = Object.freeze({
  bundle: true,
  format: "esm",
  // Neither a browser nor Node: what is not bundled is not there.
  platform: "neutral",
  mainFields: ["module", "main"],
  conditions: ["import", "default"],
  target: "es2023",
  charset: "utf8",
  legalComments: "none",
});

/** The bundle's text. `log`: whether esbuild prints what it has to say. */
export async function bundle(entry, { log = false } = {}) {
  const built = await esbuild.build({
    ...OPTIONS,
    entryPoints: [entry],
    metafile: true,
    outfile: "hook.js",
    write: false,
    logLevel: log ? "warning" : "silent",
  });
  const [{ contents, text }] = built.outputFiles;
  if (contents.length > BYTES_MAX) {
    const [output] = Object.values(built.metafile.outputs);
    const largest = Object.entries(output.inputs)
      .sort(([, a], [, b]) => b.bytesInOutput - a.bytesInOutput)
      .slice(0, 5)
      .map(([name, { bytesInOutput }]) => `\n  ${bytesInOutput} bytes ${name}`);
    throw new Error(
      `the bundle of ${entry} has ${contents.length} bytes, at most ${BYTES_MAX} are possible; its largest parts:${largest.join("")}`,
    );
  }
  return text;
}

/** Bundles `entry` and writes it to `out`, whole or not at all. Gives the count of bytes. */
export async function build(entry, out, options) {
  const text = await bundle(entry, options);
  const folder = path.dirname(out);
  await mkdir(folder, { recursive: true });
  const half = path.join(folder, `.hook-${process.pid}-${path.basename(out)}`);
  await writeFile(half, text);
  await rename(half, out);
  return Buffer.byteLength(text);
}

// Bundles a hook's source and everything that it imports into one file.

import { mkdir, rename, writeFile } from "node:fs/promises";
import path from "node:path";

import * as esbuild from "esbuild";

/** The largest source that the server accepts, in bytes. */
export const BYTES_MAX = 1 << 20;

/** The options for esbuild; `snaphook hook build` uses the same. */
export const OPTIONS = Object.freeze({
  bundle: true,
  format: "esm",
  // Neither a browser nor Node: a hook can only import what is bundled.
  platform: "neutral",
  mainFields: ["module", "main"],
  conditions: ["import", "default"],
  target: "es2023",
  charset: "utf8",
  legalComments: "none",
});

/** Returns the text of the bundle. `log`: whether esbuild prints warnings and errors. */
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
      `the bundle of ${entry} has ${contents.length} bytes, at most ${BYTES_MAX} are allowed; its largest parts:${largest.join("")}`,
    );
  }
  return text;
}

/** Bundles `entry` and writes the bundle to `out` atomically. Returns its size in bytes. */
export async function build(entry, out, options) {
  const text = await bundle(entry, options);
  const folder = path.dirname(out);
  await mkdir(folder, { recursive: true });
  const half = path.join(folder, `.hook-${process.pid}-${path.basename(out)}`);
  await writeFile(half, text);
  await rename(half, out);
  return Buffer.byteLength(text);
}

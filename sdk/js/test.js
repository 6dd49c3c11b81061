// Runs a hook in the real engine, from a test: `snaphook hook test` does the work.

import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

import { bundle } from "./build.js";

const execute = promisify(execFile);

/** Bundles a hook's source and runs it once, as a server would. */
export async function runHook(file, { phase, model, id, name, engine, before, after, config, snaphook } = {}) {
  if (typeof phase !== "string") throw new TypeError("`phase` is missing, such as `preCreate`");
  const folder = await mkdtemp(path.join(tmpdir(), "snaphook-hook-"));
  try {
    const source = path.join(folder, "hook.js");
    await writeFile(source, await bundle(file));
    const args = ["hook", "test", source, "--json", "--phase", phase, "--name", name ?? phase];
    if (model !== undefined) args.push("--model", model);
    if (engine !== undefined) args.push("--engine", engine);
    if (id !== undefined) args.push("--id", id);
    if (config !== undefined) args.push("--config", config);
    for (const [option, data] of Object.entries({ before, after })) {
      if (data === undefined) continue;
      const path_ = path.join(folder, `${option}.json`);
      await writeFile(path_, JSON.stringify(data));
      args.push(`--${option}`, path_);
    }
    const program = snaphook ?? process.env.SNAPHOOK ?? "snaphook";
    return JSON.parse(await stdout(program, args));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function stdout(program, args) {
  try {
    return (await execute(program, args, { maxBuffer: 64 << 20 })).stdout;
  } catch (error) {
    // If the hook fails, the program fails too, but prints the result.
    if (error.stdout) return error.stdout;
    if (error.code === "ENOENT") {
      throw new Error(`there is no \`${program}\`; put it on the PATH, or set SNAPHOOK to its path`);
    }
    throw new Error(error.stderr?.trim() || error.message);
  }
}

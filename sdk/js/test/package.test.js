// Uses the package as its users do: types, bundles, and hooks in the real engine.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { BYTES_MAX, build, bundle } from "../build.js";
import { runHook } from "../test.js";

const execute = promisify(execFile);
const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const hook = path.join(root, "test/hook/order.ts");
let folder;
// The directory with the library of V8; the caller sets it.
const plugins = process.env.SNAPHOOK_PLUGINS;

before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "snaphook-js-"));
  await writeFile(
    path.join(folder, "config.toml"),
    "[server]\nmount-address = '127.0.0.1:1'\n[auth]\nmode = 'open'\n[[grants]]\nmodel = 'order'\nphase = 'preCreate'\namend = true\n" +
      (plugins ? `[plugins]\ndirectory = '${plugins}'\n` : ""),
  );
});
after(() => rm(folder, { recursive: true }));

const run = (data, options) =>
  runHook(hook, { phase: "preCreate", model: "order", after: data, config: path.join(folder, "config.toml"), ...options });

test("a bundle is one file that exports the handlers", async () => {
  const text = await bundle(hook);
  assert.match(text, /export \{\s*postCreate,\s*preCreate\s*\}/);
  assert.doesNotMatch(text, /import/);
  assert.match(text, /1e3|1000/);
});

for (const engine of ["quickjs", "v8"]) {
  const skip = engine === "v8" && !plugins && "SNAPHOOK_PLUGINS is not set to a directory with V8";
  test(`a hook runs in the real engine: ${engine}`, { skip }, async () => {
    const amended = await run({ total: 42 }, { engine });
    assert.equal(amended.verdict, "amend");
    assert.deepEqual(amended.data, { total: 42, currency: "EUR" });
    assert.deepEqual(amended.log.map(({ level, message }) => [level, message]), [["info", "total 42"]]);
    assert.ok(amended.wall_ms > 0 && amended.memory_bytes > 0);

    const refused = await run({ total: 5000 }, { engine });
    assert.equal(refused.verdict, "reject");
    assert.equal(refused.message, "too much");
    assert.deepEqual(refused.fields, [{ pointer: "/total", message: "at most 1000" }]);

    const denied = await run({ total: 7 }, { engine });
    assert.equal(denied.verdict, "failed");
    assert.deepEqual(denied.asked[0], { capability: "read", target: "customer", granted: false });

    // Proves which engine ran: each has a different message for the same mistake.
    const source = path.join(folder, "mistake.js");
    await writeFile(source, "export const preCreate = ({ after }) => after.customer.name;\n");
    const failed = await runHook(source, {
      phase: "preCreate", after: {}, engine, config: path.join(folder, "config.toml"),
    });
    const words = { quickjs: /cannot read property 'name' of undefined/, v8: /Cannot read properties of undefined/ };
    assert.match(failed.message, words[engine]);
  });
}

test("an unknown engine is named", async () => {
  const missing = await run({ total: 1 }, { engine: "v9" }).catch((error) => error);
  assert.match(missing.message, /no engine `v9`/);
});

test("a hook learns what it lacks", async () => {
  const denied = await run({ total: 7 });
  assert.equal(denied.verdict, "failed");
  assert.deepEqual(denied.asked[0], { capability: "read", target: "customer", granted: false });
  assert.match(denied.message, /read = \['customer'\]/);
  const input = await run(undefined).catch((error) => error);
  assert.match(input.message, /needs `--after`/);
  const missing = await run({ total: 1 }, { snaphook: "snaphook-that-is-not-there" }).catch((error) => error);
  assert.match(missing.message, /there is no `snaphook-that-is-not-there`/);
});

test("the command builds a bundle, or reports why it cannot", async () => {
  const bin = path.join(root, "bin.js");
  const out = path.join(folder, "dist/preCreate.js");
  const { stdout } = await execute(process.execPath, [bin, "build", hook, "--out", out]);
  assert.match(stdout, /preCreate\.js: \d+ bytes/);
  assert.equal(await readFile(out, "utf8"), await bundle(hook));

  const broken = path.join(folder, "broken.ts");
  await writeFile(broken, 'import { gone } from "./gone";\nexport const preCreate = () => gone;\n');
  const failure = await execute(process.execPath, [bin, "build", broken, "--out", out]).catch((error) => error);
  assert.equal(failure.code, 1);
  assert.match(failure.stderr, /broken\.ts:1:21/);
  assert.match(failure.stderr, /error: .*broken\.ts cannot be bundled/);
  for (const args of [[], ["build"], ["build", "a.ts", "b.ts"], ["build", "a.ts", "--outt"], ["make", "a.ts"]]) {
    const usage = await execute(process.execPath, [bin, ...args]).catch((error) => error);
    assert.equal(usage.code, 2, args.join(" "));
    assert.match(usage.stderr, /usage: /);
  }
});

test("a bundle over the limit is rejected with its size, the limit and its largest parts", async () => {
  const large = path.join(folder, "large.js");
  await writeFile(large, `export const text = ${JSON.stringify("x".repeat(BYTES_MAX))};\n`);
  const entry = path.join(folder, "entry.js");
  await writeFile(entry, 'import { text } from "./large.js";\nexport const preCreate = () => text;\n');
  const error = await build(entry, path.join(folder, "never.js")).catch((error) => error);
  assert.match(error.message, /has \d{7} bytes, at most 1048576 are allowed/);
  assert.match(error.message, /bytes .*large\.js/);
  await assert.rejects(readFile(path.join(folder, "never.js")), { code: "ENOENT" });
});

test("the types accept a hook, and reject what a phase never has", async () => {
  const tsc = path.join(root, "node_modules/typescript/bin/tsc");
  const check = async (name, text) => {
    const file = path.join(folder, name);
    await writeFile(file, text);
    const paths = { "@snaphook/hook": [path.join(root, "index.d.ts")] };
    const compilerOptions = {
      target: "es2023", lib: ["es2023"], types: [], module: "esnext", moduleResolution: "bundler", strict: true,
      noEmit: true, paths, skipLibCheck: false,
    };
    const project = path.join(folder, `${name}.json`);
    await writeFile(project, JSON.stringify({ compilerOptions, files: [file] }));
    return execute(process.execPath, [tsc, "-p", project]).then(() => "", (error) => error.stdout);
  };
  assert.equal(await check("good.ts", await readFile(hook, "utf8").then((text) => text.replace("./rules", path.join(root, "test/hook/rules")))), "");
  const bad = [
    "const handler: PreCreate<{ a: number }> = ({ write }) => {};",
    "const handler: PreCreate<{ a: number }> = ({ before }) => before.a;",
    "const handler: PreDelete<{ a: number }> = ({ after }) => { after.a; };",
    "const handler: PreCreate<{ a: number }> = () => ({ a: 'x' });",
    "const handler: PostCreate<{ a: number }> = ({ after }) => { after.b; };",
  ];
  for (const [index, line] of bad.entries()) {
    const said = await check(`bad${index}.ts`, `import type { PreCreate, PreDelete, PostCreate } from "@snaphook/hook";\nexport ${line}\n`);
    assert.match(said, /error TS/, line);
  }
});

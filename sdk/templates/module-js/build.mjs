// Builds {{name}}.wasm from app.js: `npm run build`.
import { writeFile } from "node:fs/promises";

import { componentize } from "@bytecodealliance/componentize-js";

const { component } = await componentize({ sourcePath: "app.js", witPath: "wit", worldName: "module" });
await writeFile("{{name}}.wasm", component);

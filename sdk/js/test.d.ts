// Types of `@snaphook/hook/test`.

import type { Json, Phase } from "./index.js";

export interface RunInput {
  phase: Phase;
  /** The model's id, for grants. */
  model?: string;
  /** The instance's id. */
  id?: string;
  /** The hook's name, for grants; the phase if absent. */
  name?: string;
  /** `quickjs` or `v8`; `quickjs` if absent. */
  engine?: "quickjs" | "v8";
  /** Data before the change (update and delete). */
  before?: unknown;
  /** Data after the change (create and update). */
  after?: unknown;
  /** The configuration with the grants; `config.toml` in the working directory if absent. */
  config?: string;
  /** The path of the program; if absent, the environment variable SNAPHOOK, or `snaphook` on the PATH. */
  snaphook?: string;
}

export interface RunResult<Data = Json> {
  verdict: "accept" | "amend" | "reject" | "failed";
  /** The data that the hook returned, if it amended it. */
  data?: Data;
  /** The message of a rejection or a failure. */
  message?: string;
  fields?: { pointer: string; message: string }[];
  /** The cause of a failure: `exception`, `timeout`, `memory` and others. */
  cause?: string;
  log: { time: string; level: "debug" | "info" | "warn" | "error"; message: string }[];
  /** The capabilities that the hook used or was denied. */
  asked: { capability: string; target: string; granted: boolean }[];
  wall_ms: number;
  host_ms: number;
  memory_bytes: number;
}

/** Bundles a hook's source and runs it once in the real engine, as a server would. */
export function runHook<Data = Json>(file: string, input: RunInput): Promise<RunResult<Data>>;

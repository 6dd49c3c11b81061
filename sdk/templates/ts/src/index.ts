// The hook {{name}}. You may import other files and packages: `snaphook hook build` bundles them into one file.

import type { {{Phase}} } from "@snaphook/hook";

/** The model's data; `snaphook hook types <model>` writes this type. */
interface Data {
  [property: string]: unknown;
}

/**
 * Before the change: throw a `Reject` to reject it, return data to amend it (needs the grant `amend`), return nothing to accept it.
 * After the change it is too late to reject it; `write`, `fetch` and `run` are available then, if they are granted.
 */
export const {{phase}}: {{Phase}}<Data> = async ({ before, after, log }) => {
  const data = after ?? before;
  log.info(`{{name}} looks at ${JSON.stringify(data)}`);
};

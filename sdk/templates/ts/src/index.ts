// The hook {{name}}. Other files and packages may be imported: `snaphook hook build` makes one file of them.

import type { {{Phase}} } from "@snaphook/hook";

/** The model's data; `snaphook hook types <model>` writes this type. */
interface Data {
  [property: string]: unknown;
}

/**
 * Throw a `Reject` to refuse, return data to change it (needs the grant `amend`), return nothing to let the change pass.
 * After the change nothing can be refused; then `write`, `fetch` and `run` are there, as far as they are granted.
 */
export const {{phase}}: {{Phase}}<Data> = async ({ before, after, log }) => {
  const data = after ?? before;
  log.info(`{{name}} looks at ${JSON.stringify(data)}`);
};

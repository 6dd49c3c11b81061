// Types of `@snaphook/hook/build`.

/** Longest source that the server takes. */
export const BYTES_MAX: number;

/** The text of one file with `entry` and everything that it imports. */
export function bundle(entry: string, options?: { log?: boolean }): Promise<string>;

/** Bundles `entry` and writes it to `out`, whole or not at all. Gives the count of bytes. */
export function build(entry: string, out: string, options?: { log?: boolean }): Promise<number>;

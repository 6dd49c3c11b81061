// Types of `@snaphook/hook/build`.

/** The largest source that the server accepts, in bytes. */
export const BYTES_MAX: number;

/** Bundles `entry` and everything that it imports; returns the text of the bundle. */
export function bundle(entry: string, options?: { log?: boolean }): Promise<string>;

/** Bundles `entry` and writes the bundle to `out` atomically. Returns its size in bytes. */
export function build(entry: string, out: string, options?: { log?: boolean }): Promise<number>;

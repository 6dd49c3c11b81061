// What the hook of the tests imports.

export const LIMIT: number = 1000;

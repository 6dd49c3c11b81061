// Imported by the hook of the tests.

export const LIMIT: number = 1000;

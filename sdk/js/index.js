// The package's main module holds types alone: what a hook uses is given to it, and `Reject` is a global.
export {};

// What the module calls (src/runner.rs).

return {
  run: (phase, context, mark) => run("", phase, context, mark),
  returned: () => pending,
  fulfilled,
  settle,
  accept(loaded) {
    program = loaded;
  },
  prepare() {
    const loaded = program;
    program = null;
    handlers = loaded();
  },
  failure,
  explain: (error) => stringify(describe(error)),
  arrived,
  due,
  wake,
};

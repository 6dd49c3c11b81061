/* Stops what a library throws: a C++ exception, or a panic of a Rust library with a runtime of its own.

   Rust's catch_unwind ends the process on exceptions that are not its own. So the frame below is cleaned up like any
   other when something unwinds through it, and its clean-up leaves by a jump: from there on the exception is forgotten.
   Its caller must stand inside a catch_unwind, or the unwinder finds nobody who would catch it and does not begin. */
#include <setjmp.h>

struct frame {
  jmp_buf back;
  volatile int done;
};

static void leave(struct frame **frame) {
  if (!(*frame)->done) longjmp((*frame)->back, 1);
}

static __attribute__((noinline)) void enter(struct frame *frame, void (*run)(void *), void *data) {
  __attribute__((cleanup(leave))) struct frame *guard = frame;
  run(data);
  guard->done = 1;
}

/* 1: something was thrown out of `run`. */
int snaphook_guard(void (*run)(void *), void *data) {
  struct frame frame;
  frame.done = 0;
  if (setjmp(frame.back)) return 1;
  enter(&frame, run, data);
  return 0;
}

/* A plugin that can be loaded and opened, and then does with each call what the name in its request says. */
#define _GNU_SOURCE
#include "snaphook_driver.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unwind.h>

/* Some calls wait until a call says `release`. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool is_released;

static void wait_for_release(void) {
  pthread_mutex_lock(&lock);
  while (!is_released) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

static void release(void) {
  pthread_mutex_lock(&lock);
  is_released = true;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
}

static void answer(snaphook_plugin_completion completion, uint32_t status, const void *ptr, size_t len) {
  completion.complete(completion.call, status, (snaphook_plugin_bytes){ptr, len});
}

static void *answer_when_released(void *data) {
  snaphook_plugin_completion completion = *(snaphook_plugin_completion *)data;
  free(data);
  wait_for_release();
  answer(completion, SNAPHOOK_PLUGIN_OK, "", 0);
  return NULL;
}

static void later(snaphook_plugin_completion completion) {
  snaphook_plugin_completion *copy = malloc(sizeof(completion));
  *copy = completion;
  pthread_t thread;
  pthread_create(&thread, NULL, answer_when_released, copy);
  pthread_detach(thread);
}

static void throw_something(void) {
  static struct _Unwind_Exception exception;
  _Unwind_RaiseException(&exception);
}

static void open_store(snaphook_plugin_bytes request, snaphook_plugin_completion completion) {
  (void)request;
  /* `OpenResponse`: handle 1, log `l`. */
  answer(completion, SNAPHOOK_PLUGIN_OK, "\x08\x01\x1a\x01l", 5);
}

static void call(uint64_t handle, uint32_t method, snaphook_plugin_bytes request,
                 snaphook_plugin_completion completion) {
  (void)handle;
  uint32_t ok = SNAPHOOK_PLUGIN_OK;
#define SAYS(word) (request.len && memmem(request.ptr, request.len, word, sizeof(word) - 1))
  if (SAYS("release")) release();
  if (SAYS("twice")) answer(completion, ok, "", 0);
  if (SAYS("made-up")) completion.complete(completion.call + 1000000, ok, (snaphook_plugin_bytes){NULL, 7});
  if (SAYS("nobody")) completion.complete(UINT64_MAX, ok, (snaphook_plugin_bytes){NULL, 7});
  if (SAYS("never")) return;
  if (SAYS("later")) return later(completion);
  if (SAYS("block")) {
    wait_for_release();
  } else if (SAYS("answer-first")) {
    answer(completion, ok, "", 0);
    return wait_for_release();
  }
  if (SAYS("throw")) throw_something();
  if (SAYS("garbage")) return answer(completion, ok, "\xff\xff\xff", 3);
  if (SAYS("no-utf8")) return answer(completion, ok, "\x0a\x01\xff", 3);
  if (SAYS("odd-status")) return answer(completion, 7, "", 0);
  if (SAYS("null")) return answer(completion, ok, NULL, 10);
  if (SAYS("huge")) return answer(completion, ok, "x", SIZE_MAX);
  if (SAYS("odd-error")) return answer(completion, SNAPHOOK_PLUGIN_ERROR, "\xff", 1);
  /* Two outcomes, whatever the number of appends: position 1 and 2. */
  if (method == SNAPHOOK_METHOD_EVENT_APPEND) return answer(completion, ok, "\x0a\x04\x0a\x02\x08\x01\x0a\x04\x0a\x02\x08\x02", 12);
  answer(completion, ok, "", 0);
}

/* `Plugin`: name `h`, version `1`, a driver `h` with secure and event storage. */
static const uint8_t description[] = "\x0a\x01h\x12\x01" "1\x1a\x07\x0a\x01h\x10\x01\x10\x02";

static const snaphook_plugin plugin = {
    .abi_version = SNAPHOOK_PLUGIN_ABI_VERSION,
    .struct_size = sizeof(snaphook_plugin),
    .name = {"h", 1},
    .version = {"1", 1},
    .description = {description, sizeof(description) - 1},
    .open = open_store,
    .call = call,
};

const snaphook_plugin *snaphook_plugin_v1(void) { return &plugin; }

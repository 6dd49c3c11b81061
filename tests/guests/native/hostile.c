/* Libraries that break the rules of the header, one for each CASE. Compiled with -DCASE=name. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snaphook_hook.h"

#define PAYLOAD(literal) ((snaphook_bytes){(const uint8_t *)(literal), sizeof(literal) - 1})
#define TEXT(literal) ((snaphook_text){literal, sizeof(literal) - 1})

typedef void Case(uint64_t call, const snaphook_context *context, const snaphook_host *host);

Case answers_twice, never_answers, wrong_kind, no_utf8, no_json, no_rejection, null_payload, rejects_after, releases_twice,
    releases_unknown, null_text, null_out, odd_level, hoards, never_returns, throws, late, quick_then_stuck;

void answers_twice(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)context;
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
  host->answer(call, SNAPHOOK_ANSWER_AMEND, PAYLOAD("{}"));
}

void never_answers(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)call, (void)context, (void)host;
}

void wrong_kind(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)context;
  host->answer(call, 77, PAYLOAD(""));
}

void no_utf8(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)context;
  host->answer(call, SNAPHOOK_ANSWER_AMEND, PAYLOAD("{\"a\":\"\xff\"}"));
}

void no_json(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)context;
  host->answer(call, SNAPHOOK_ANSWER_AMEND, PAYLOAD("{]"));
}

void no_rejection(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)context;
  host->answer(call, SNAPHOOK_ANSWER_REJECT, PAYLOAD("no"));
}

void null_payload(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)context;
  host->answer(call, SNAPHOOK_ANSWER_AMEND, (snaphook_bytes){NULL, 5});
}

void rejects_after(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)context;
  host->answer(call, SNAPHOOK_ANSWER_REJECT, PAYLOAD("{\"message\":\"no\"}"));
}

void releases_twice(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  snaphook_buffer out;
  host->read_get(call, TEXT("item"), context->id, &out);
  host->release(call, out.handle);
  host->release(call, out.handle);
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

void releases_unknown(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)context;
  host->release(call, 99);
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

void null_text(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)context;
  host->log(call, SNAPHOOK_LEVEL_INFO, (snaphook_text){NULL, 3});
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

void null_out(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  host->read_get(call, TEXT("item"), context->id, NULL);
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

void odd_level(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)context;
  host->log(call, 9, TEXT("x"));
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

/* Never releases a buffer. */
void hoards(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  snaphook_buffer out;
  while (host->read_get(call, TEXT("item"), context->id, &out) == SNAPHOOK_STATUS_OK) {
  }
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

void never_returns(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  (void)call, (void)context, (void)host;
  /* Sleeps, so that other tests can use the cores. */
  for (;;) sleep(1);
}

/* Like a panic or a C++ exception: an exception of an unknown language. */
struct exception {
  uint64_t class;
  void (*cleanup)(int, void *);
  uintptr_t private[6];
} __attribute__((aligned));
extern int _Unwind_RaiseException(struct exception *);

void throws(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  static __thread struct exception thrown;
  (void)context;
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
  memset(&thrown, 0, sizeof thrown);
  thrown.class = 0x4e4f424f44592121;
  _Unwind_RaiseException(&thrown);
  abort();
}

/* Uses the number of the previous call, which is over. */
void late(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  static uint64_t last;
  (void)context;
  if (last != 0 && host->answer(last, SNAPHOOK_ANSWER_AMEND, PAYLOAD("{}")) != SNAPHOOK_STATUS_OVER) abort();
  if (last != 0 && host->log(last, SNAPHOOK_LEVEL_INFO, TEXT("late")) != SNAPHOOK_STATUS_OVER) abort();
  last = call;
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

/* Logs whether it runs on a thread of the runtime; does not return if the actor is `stuck`. */
void quick_then_stuck(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  char name[16] = {0};
  static const char stuck[] = "{\"id\":\"stuck\"";
  const size_t length = sizeof stuck - 1;
  if (context->actor.ptr != NULL && context->actor.len >= length && memcmp(context->actor.ptr, stuck, length) == 0) {
    for (;;) sleep(1);
  }
  pthread_getname_np(pthread_self(), name, sizeof name);
  if (strncmp(name, "tokio", 5) == 0) host->log(call, SNAPHOOK_LEVEL_INFO, TEXT("tokio"));
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

#ifdef NEEDS
/* Defined in no loaded library. */
extern int NEEDS(void);
int (*needed)(void) = NEEDS;
#endif

#ifndef CASE
#define CASE never_answers
#endif
#ifndef VERSION
#define VERSION SNAPHOOK_ABI_VERSION
#endif
#ifndef SIZE
#define SIZE sizeof(snaphook_descriptor)
#endif

static const snaphook_descriptor descriptor = {
    .abi_version = VERSION,
    .struct_size = SIZE,
    .name = {"hostile", 7},
#ifndef WITHOUT_CHECK
    .check = CASE,
#endif
    .react = CASE,
};

#ifdef SYMBOL
const snaphook_descriptor *SYMBOL(void);
#else
#define SYMBOL snaphook_hook
#endif

const snaphook_descriptor *SYMBOL(void) {
#ifdef NO_DESCRIPTOR
  return descriptor.name.len == 0 ? &descriptor : NULL;
#else
  return &descriptor;
#endif
}

/* A native hook in C: rejects an order of more than a million.

   cc -shared -fPIC -O2 -I sdk/c -o hooks/check.so sdk/c/examples/check.c */

#include <stdlib.h>
#include <string.h>

#include "snaphook_hook.h"

#define PAYLOAD(literal) ((snaphook_bytes){(const uint8_t *)(literal), sizeof(literal) - 1})

/* The number after "total". Enough for an example; use a JSON parser in a real hook. */
static double total_of(snaphook_text data) {
  static const char key[] = "\"total\":";
  char number[64] = {0};
  for (size_t at = 0; at + sizeof key - 1 < data.len; at++) {
    if (memcmp(data.ptr + at, key, sizeof key - 1) == 0) {
      size_t start = at + sizeof key - 1, left = data.len - start;
      memcpy(number, data.ptr + start, left < sizeof number ? left : sizeof number - 1);
      return strtod(number, NULL);
    }
  }
  return 0;
}

static void check(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  if (context->after.ptr != NULL && total_of(context->after) > 1e6) {
    host->answer(call, SNAPHOOK_ANSWER_REJECT,
                 PAYLOAD("{\"message\":\"at most a million\","
                         "\"fields\":[{\"pointer\":\"/total\",\"message\":\"at most a million\"}]}"));
    return;
  }
  host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

static const snaphook_descriptor descriptor = {
    .abi_version = SNAPHOOK_ABI_VERSION,
    .struct_size = sizeof(snaphook_descriptor),
    .name = {"check", 5},
    .check = check,
};

const snaphook_descriptor *snaphook_hook(void) { return &descriptor; }

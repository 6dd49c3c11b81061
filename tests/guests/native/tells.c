/* Rejects every change with the word of -DSAYS=word, which identifies the library. With -DREADS it adds the status of a read of
   its own model: 1 (no such instance), 2 (denied). With -DWAITS=path, if the data contains 77, it creates that file and waits
   until the file is removed. */

#define _GNU_SOURCE

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "snaphook_hook.h"

#define TEXT(literal) ((snaphook_text){literal, sizeof(literal) - 1})
#define QUOTED(word) #word
#define STRING(word) QUOTED(word)

static void check(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  char answer[200] = "{\"message\":\"" STRING(SAYS) "\"}";
#ifdef READS
  snaphook_buffer out;
  int status = host->read_get(call, context->model, TEXT("none"), &out);
  snprintf(answer, sizeof answer, "{\"message\":\"" STRING(SAYS) ": %d\"}", status);
#endif
#ifdef WAITS
  if (memmem(context->after.ptr, context->after.len, "77", 2) != NULL) {
    fclose(fopen(STRING(WAITS), "w"));
    while (access(STRING(WAITS), F_OK) == 0) usleep(1000);
  }
#endif
  (void)context;
  host->answer(call, SNAPHOOK_ANSWER_REJECT, (snaphook_bytes){(const uint8_t *)answer, strlen(answer)});
}

static const snaphook_descriptor descriptor = {
    .abi_version = SNAPHOOK_ABI_VERSION,
    .struct_size = sizeof(snaphook_descriptor),
    .name = {"tells", 5},
    .check = check,
};

const snaphook_descriptor *snaphook_hook(void) { return &descriptor; }

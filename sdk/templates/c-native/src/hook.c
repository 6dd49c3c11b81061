/* {{name}}, for {{phase}}: rejects data without a name. A native hook: it runs in the server's own process. */

#include <stdbool.h>
#include <string.h>

#include "snaphook_hook.h"

#define PAYLOAD(literal) ((snaphook_bytes){(const uint8_t *)(literal), sizeof(literal) - 1})

static bool contains(snaphook_text text, const char *word) {
    size_t length = strlen(word);
    for (size_t at = 0; at + length <= text.len; at++) {
        if (memcmp(text.ptr + at, word, length) == 0) return true;
    }
    return false;
}

/* Runs before a change is stored. Call `host->answer` exactly once: accept, amend, reject or fail. */
static void check(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
    if (context->after.ptr != NULL && !contains(context->after, "\"name\"")) {
        host->answer(call, SNAPHOOK_ANSWER_REJECT,
                     PAYLOAD("{\"message\":\"a name is missing\","
                             "\"fields\":[{\"pointer\":\"/name\",\"message\":\"is missing\"}]}"));
        return;
    }
    host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

/* Runs after a change is stored, at least once. Call `host->answer` exactly once: accept, or fail to be retried. */
static void react(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
    (void)context;
    host->answer(call, SNAPHOOK_ANSWER_ACCEPT, PAYLOAD(""));
}

static const snaphook_descriptor descriptor = {
    .abi_version = SNAPHOOK_ABI_VERSION,
    .struct_size = sizeof(snaphook_descriptor),
    .name = {"{{name}}", sizeof("{{name}}") - 1},
    .check = check,
    .react = react,
};

const snaphook_descriptor *snaphook_hook(void) { return &descriptor; }

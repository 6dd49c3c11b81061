/* {{name}}, for {{phase}}: rejects data without a name. */

#include <stdlib.h>
#include <string.h>

#include "hook.h"

static bool contains(const hook_string_t *text, const char *word) {
    size_t length = strlen(word);
    for (size_t at = 0; at + length <= text->len; at++) {
        if (memcmp(text->ptr + at, word, length) == 0) return true;
    }
    return false;
}

/* Runs before a change is stored. Return true with a verdict in `ret`, or false with a rejection in `err`. */
bool exports_hook_check(hook_context_t *ctx, hook_verdict_t *ret, hook_rejection_t *err) {
    if (ctx->after.is_some && !contains(&ctx->after.val, "\"name\"")) {
        hook_string_dup(&err->message, "a name is missing");
        err->fields.len = 1;
        err->fields.ptr = malloc(sizeof *err->fields.ptr);
        hook_string_dup(&err->fields.ptr[0].pointer, "/name");
        hook_string_dup(&err->fields.ptr[0].message, "is missing");
        return false;
    }
    ret->tag = SNAPHOOK_HOOK_TYPES_VERDICT_ACCEPT;
    return true;
}

/* Runs after a change is stored. Return true when done; false fails with `err`, and the hook is retried. */
bool exports_hook_react(hook_context_t *ctx, hook_string_t *err) {
    (void)err;
    snaphook_hook_log_write(SNAPHOOK_HOOK_LOG_LEVEL_INFO, &ctx->id);
    return true;
}

/* A pre hook: refuses an order of more than a million. Of the data it looks at one member, so it does without a library for
 * JSON. */

#include <stdlib.h>
#include <string.h>

#include "hook.h"

#define TOTAL_MAX 1e6

/* The number after `"total":`, at any depth; 0 if there is none. */
static double total(const hook_string_t *data) {
    char *text = malloc(data->len + 1);
    if (!text) abort();
    memcpy(text, data->ptr, data->len);
    text[data->len] = 0;
    char *member = strstr(text, "\"total\"");
    double found = member ? strtod(member + strcspn(member, ":") + 1, NULL) : 0;
    free(text);
    return found;
}

bool exports_hook_check(hook_context_t *ctx, hook_verdict_t *ret, hook_rejection_t *err) {
    if (ctx->after.is_some && total(&ctx->after.val) > TOTAL_MAX) {
        hook_string_dup(&err->message, "at most a million");
        err->fields.ptr = malloc(sizeof *err->fields.ptr);
        err->fields.len = 1;
        hook_string_dup(&err->fields.ptr[0].pointer, "/total");
        hook_string_dup(&err->fields.ptr[0].message, "at most a million");
        return false;
    }
    ret->tag = SNAPHOOK_HOOK_TYPES_VERDICT_ACCEPT;
    return true;
}

/* After a change there is nothing to do. */
bool exports_hook_react(hook_context_t *ctx, hook_string_t *err) {
    (void)ctx;
    (void)err;
    return true;
}

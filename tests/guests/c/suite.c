/* The suite's hook in C: one component for all tasks and phases. The id of the context's `actor` chooses the task; the context's
 * `id` is the task's parameter. Strings are a pointer and a length, without a terminating zero. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hook.h"

typedef snaphook_hook_types_access_error_t access_error;

static bool is(const hook_string_t *text, const char *word) {
    return text->len == strlen(word) && memcmp(text->ptr, word, text->len) == 0;
}

static void log_at(snaphook_hook_log_level_t level, const char *text) {
    hook_string_t line;
    hook_string_set(&line, text);
    snaphook_hook_log_write(level, &line);
}

static void info_bytes(const uint8_t *bytes, size_t length) {
    hook_string_t line = {(uint8_t *)bytes, length};
    snaphook_hook_log_write(SNAPHOOK_HOOK_LOG_LEVEL_INFO, &line);
}

static void info(const hook_string_t *text) { info_bytes(text->ptr, text->len); }

/* Logs a text followed by bytes. */
static void info_two(const char *before, const uint8_t *bytes, size_t length) {
    size_t start = strlen(before);
    uint8_t *line = malloc(start + length);
    memcpy(line, before, start);
    memcpy(line + start, bytes, length);
    info_bytes(line, start + length);
    free(line);
}

static bool refused(access_error *error) {
    info(&error->code);
    info(&error->message);
    return true;
}

/* The compiler cannot turn this into a loop, because it adds after the call. It uses no stack in linear memory. */
static volatile unsigned depth;

__attribute__((noinline)) static unsigned deep(unsigned level) {
    depth = level;
    return level == 0xffffffff ? 0 : deep(level + 1) + depth;
}

/* Prevents allocations from being optimised away. */
static uint8_t *volatile kept;

static void forever(void) {
    for (volatile unsigned turn = 0;; turn++) {
    }
}

/* The id of the actor, which is a JSON object; an older server sends only the id. */
static hook_string_t task_of(const hook_context_t *ctx) {
    static const char start[] = "{\"id\":\"";
    hook_string_t word = ctx->actor.val;
    if (word.len < sizeof start || memcmp(word.ptr, start, sizeof start - 1)) return word;
    word.ptr += sizeof start - 1;
    word.len = (uint8_t *)memchr(word.ptr, '"', word.len - (sizeof start - 1)) - word.ptr;
    return word;
}

static void tell(const hook_context_t *ctx) {
    static const char *phases[] = {"preCreate", "postCreate", "preUpdate", "postUpdate", "preDelete", "postDelete"};
    char start[512];
    snprintf(start, sizeof start, "%s %.*s@%llu ", phases[ctx->phase], (int)ctx->model.id.len, (char *)ctx->model.id.ptr,
             (unsigned long long)ctx->model.version);
    info_two(start, ctx->id.ptr, ctx->id.len);
    const hook_string_t *request = &ctx->request_id.val;
    snprintf(start, sizeof start, "%.*s %.*s %u", (int)request->len, (char *)request->ptr, (int)ctx->time.len,
             (char *)ctx->time.ptr, ctx->attempt);
    info_two(start, NULL, 0);
    const hook_option_string_t *data[] = {&ctx->before, &ctx->after};
    static const char *names[] = {"before ", "after "};
    for (int index = 0; index < 2; index++) {
        bool some = data[index]->is_some;
        info_two(names[index], some ? data[index]->val.ptr : (uint8_t *)"none", some ? data[index]->val.len : 4);
    }
    if (ctx->event.is_some) {
        const snaphook_hook_types_event_ref_t *event = &ctx->event.val;
        snprintf(start, sizeof start, "event %llu ", (unsigned long long)event->position);
        info_two(start, event->id.ptr, event->id.len);
    } else {
        info_two("event none", NULL, 0);
    }
}

/* Runs the tasks that use a capability; returns whether there was one. */
static bool ask(const hook_context_t *ctx) {
    const hook_string_t word = task_of(ctx), *task = &word;
    hook_string_t item, note, data, id = ctx->id;
    hook_string_set(&item, "item");
    hook_string_set(&note, "note");
    access_error error;
    snaphook_hook_types_instance_t instance;
    char start[64];
    if (is(task, "read-get")) {
        snaphook_hook_read_option_instance_t found;
        if (!snaphook_hook_read_get(&item, &id, &found, &error)) return refused(&error);
        info_two("", found.is_some ? found.val.data.ptr : (uint8_t *)"absent", found.is_some ? found.val.data.len : 6);
    } else if (is(task, "read-query")) {
        snaphook_hook_read_page_t page;
        hook_string_set(&data, "{\"limit\":1}");
        if (!snaphook_hook_read_query(&item, &data, &page, &error)) return refused(&error);
        const hook_string_t *first = &page.items.ptr[0].id;
        snprintf(start, sizeof start, "%.*s ", (int)first->len, (char *)first->ptr);
        info_two(start, page.next.val.ptr, page.next.is_some ? page.next.val.len : 0);
    } else if (is(task, "read-event")) {
        hook_option_string_t found;
        snprintf(start, sizeof start, "%.*s", (int)id.len, (char *)id.ptr);
        if (!snaphook_hook_read_event(strtoull(start, NULL, 10), &found, &error)) return refused(&error);
        info_two(found.is_some ? "present" : "absent", NULL, 0);
    } else if (is(task, "write-create")) {
        hook_string_set(&data, "{\"a\":1}");
        if (!snaphook_hook_write_create(&note, &id, &data, NULL, &instance, &error)) return refused(&error);
        info(&instance.data);
    } else if (is(task, "write-update")) {
        hook_string_set(&data, "{\"a\":2}");
        if (!snaphook_hook_write_update(&note, &id, &data, NULL, &instance, &error)) return refused(&error);
        info(&instance.data);
    } else if (is(task, "write-delete")) {
        if (!snaphook_hook_write_delete(&note, &id, NULL, &instance, &error)) return refused(&error);
        info(&instance.data);
    } else if (is(task, "http-send")) {
        hook_tuple2_string_string_t header;
        hook_string_set(&header.f0, "x-a");
        hook_string_set(&header.f1, "1");
        snaphook_hook_http_request_t request = {.url = id, .headers = {&header, 1}, .body = {(uint8_t *)"hi", 2}};
        hook_string_set(&request.method, "POST");
        request.redirect = SNAPHOOK_HOOK_HTTP_REDIRECT_FOLLOW;
        snaphook_hook_http_response_t response;
        if (!snaphook_hook_http_send(&request, &response, &error)) return refused(&error);
        snprintf(start, sizeof start, "%u ", response.status);
        info_two(start, response.body.ptr, response.body.len);
    } else if (is(task, "process-run")) {
        hook_string_t arg;
        hook_string_set(&arg, "-");
        snaphook_hook_process_command_t command = {.program = id, .args = {&arg, 1}, .stdin_ = {(uint8_t *)"in", 2}};
        snaphook_hook_process_output_t output;
        if (!snaphook_hook_process_run(&command, &output, &error)) return refused(&error);
        snprintf(start, sizeof start, "%d ", (int)output.code);
        info_two(start, output.stdout_.ptr, output.stdout_.len);
    } else if (is(task, "secret-get")) {
        if (!snaphook_hook_secret_get(&id, &data, &error)) return refused(&error);
        info(&data);
    } else {
        return false;
    }
    return true;
}

/* Runs the tasks that have the same result in every phase, if any. */
static void run(const hook_context_t *ctx) {
    const hook_string_t word = task_of(ctx), *task = &word;
    if (is(task, "accept") || ask(ctx)) return;
    if (is(task, "crash")) abort();
    if (is(task, "tell")) {
        tell(ctx);
    } else if (is(task, "log")) {
        log_at(SNAPHOOK_HOOK_LOG_LEVEL_DEBUG, "d");
        log_at(SNAPHOOK_HOOK_LOG_LEVEL_INFO, "i");
        log_at(SNAPHOOK_HOOK_LOG_LEVEL_WARN, "w");
        log_at(SNAPHOOK_HOOK_LOG_LEVEL_ERROR, "e");
    } else if (is(task, "loop")) {
        forever();
    } else if (is(task, "grow")) {
        for (;;) {
            kept = malloc(1 << 20);
            if (!kept) abort();
            memset(kept, 1, 1 << 20);
        }
    } else if (is(task, "recurse")) {
        depth = deep(0);
    } else if (is(task, "talk")) {
        for (;;) log_at(SNAPHOOK_HOOK_LOG_LEVEL_INFO, "x");
    } else if (is(task, "shout")) {
        static uint8_t line[8000];
        memset(line, 'x', sizeof line);
        for (;;) info_bytes(line, sizeof line);
    } else if (is(task, "ask")) {
        for (;;) {
            hook_string_t model, id;
            hook_string_set(&model, "a");
            hook_string_set(&id, "b");
            snaphook_hook_read_option_instance_t found;
            access_error error;
            if (!snaphook_hook_read_get(&model, &id, &found, &error)) snaphook_hook_types_access_error_free(&error);
        }
    } else {
        info_two("no task ", task->ptr, task->len);
    }
}

bool exports_hook_check(hook_context_t *ctx, hook_verdict_t *ret, hook_rejection_t *err) {
    static unsigned calls;
    const hook_string_t word = task_of(ctx), *task = &word;
    ret->tag = SNAPHOOK_HOOK_TYPES_VERDICT_AMEND;
    hook_string_t *data = &ret->val.amend;
    char text[64];
    if (is(task, "amend")) {
        hook_string_dup(data, "{\"n\":1}");
    } else if (is(task, "reject")) {
        hook_string_dup(&err->message, "no");
        err->fields.ptr = malloc(sizeof *err->fields.ptr);
        err->fields.len = 1;
        hook_string_dup(&err->fields.ptr[0].pointer, "/a");
        hook_string_dup(&err->fields.ptr[0].message, "bad");
        return false;
    } else if (is(task, "same")) {
        *data = ctx->after.val;
    } else if (is(task, "add")) {
        /* The data is not empty. */
        static const char added[] = "{\"x\":1,";
        const uint8_t *brace = memchr(ctx->after.val.ptr, '{', ctx->after.val.len);
        size_t rest = ctx->after.val.len - (size_t)(brace + 1 - ctx->after.val.ptr);
        data->len = sizeof added - 1 + rest;
        data->ptr = malloc(data->len);
        if (!data->ptr) abort();
        memcpy(data->ptr, added, sizeof added - 1);
        memcpy(data->ptr + sizeof added - 1, brace + 1, rest);
    } else if (is(task, "flood")) {
        data->len = 20000000;
        data->ptr = malloc(data->len);
        if (!data->ptr) abort();
        memset(data->ptr, ' ', data->len);
    } else if (is(task, "count")) {
        calls++;
        if (calls == 3) forever();
        snprintf(text, sizeof text, "{\"n\":%u}", calls);
        hook_string_dup(data, text);
    } else {
        run(ctx);
        ret->tag = SNAPHOOK_HOOK_TYPES_VERDICT_ACCEPT;
    }
    return true;
}

bool exports_hook_react(hook_context_t *ctx, hook_string_t *err) {
    const hook_string_t task = task_of(ctx);
    if (is(&task, "fail")) {
        hook_string_dup(err, "oops");
        return false;
    }
    run(ctx);
    return true;
}

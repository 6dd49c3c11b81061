/* The suite's hook in C, as a native library: all tasks of src/hooks/engines/conformance. The id of the context's `actor`
   chooses the task; the context's `id` is the task's parameter. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "snaphook_hook.h"

typedef struct {
  uint64_t call;
  const snaphook_context *context;
  const snaphook_host *host;
} Run;

static snaphook_text text(const char *literal) { return (snaphook_text){literal, strlen(literal)}; }

static int is(snaphook_text a, const char *b) { return a.len == strlen(b) && memcmp(a.ptr, b, a.len) == 0; }

static void answer(const Run *run, uint32_t kind, const char *payload) {
  run->host->answer(run->call, kind, (snaphook_bytes){(const uint8_t *)payload, strlen(payload)});
}

static void info(const Run *run, const char *line, size_t len) {
  run->host->log(run->call, SNAPHOOK_LEVEL_INFO, (snaphook_text){line, len});
}

/* Returns the end of `"key":` in an object, or NULL. The host writes JSON without spaces. */
static const char *after_key(const snaphook_buffer *json, const char *key) {
  char quoted[64];
  int length = snprintf(quoted, sizeof quoted, "\"%s\":", key);
  for (size_t at = 0; at + (size_t)length <= json->len; at++) {
    if (memcmp(json->ptr + at, quoted, (size_t)length) == 0) return (const char *)json->ptr + at + length;
  }
  return NULL;
}

/* Copies the text of a member. Handles only the escapes \" and \n, which occur in messages. */
static size_t string_of(const snaphook_buffer *json, const char *key, char *out, size_t size) {
  const char *at = after_key(json, key), *end = (const char *)json->ptr + json->len;
  size_t length = 0;
  if (at == NULL || at >= end || *at != '"') return 0;
  for (at++; at < end && *at != '"' && length < size; at++) {
    if (*at == '\\' && at + 1 < end) out[length++] = *++at == 'n' ? '\n' : *at;
    else out[length++] = *at;
  }
  return length;
}

/* Logs the object after `"data":`, which is the last member. */
static void info_data(const Run *run, const snaphook_buffer *instance) {
  const char *data = after_key(instance, "data");
  if (data != NULL) info(run, data, (size_t)((const char *)instance->ptr + instance->len - data) - 1);
}

static void info_error(const Run *run, const snaphook_buffer *error) {
  static const size_t size = 16384;
  char *line = malloc(size);
  info(run, line, string_of(error, "code", line, size));
  info(run, line, string_of(error, "message", line, size));
  free(line);
}

static void joined(const Run *run, long number, const snaphook_buffer *rest) {
  char *line = malloc(32 + rest->len);
  int length = sprintf(line, "%ld ", number);
  memcpy(line + length, rest->ptr, rest->len);
  info(run, line, (size_t)length + rest->len);
  free(line);
}

/* Runs the tasks that use a capability; 0: no such task. */
static int ask(const Run *run, snaphook_text task) {
  const snaphook_host *host = run->host;
  snaphook_text id = run->context->id;
  snaphook_buffer out = {0}, more = {0};
  int32_t status = SNAPHOOK_STATUS_OK, code = -1;
  if (is(task, "read-get")) {
    status = host->read_get(run->call, text("item"), id, &out);
    if (status == SNAPHOOK_STATUS_OK) info_data(run, &out);
    if (status == SNAPHOOK_STATUS_NONE) info(run, "absent", 6);
  } else if (is(task, "read-query")) {
    status = host->read_query(run->call, text("item"), text("{\"limit\":1}"), &out);
    if (status == SNAPHOOK_STATUS_OK) {
      char line[256];
      size_t length = string_of(&out, "id", line, 100);
      line[length++] = ' ';
      length += string_of(&out, "next", line + length, 100);
      info(run, line, length);
    }
  } else if (is(task, "read-event")) {
    char number[32] = {0};
    memcpy(number, id.ptr, id.len < 31 ? id.len : 31);
    status = host->read_event(run->call, strtoull(number, NULL, 10), &out);
    if (status == SNAPHOOK_STATUS_OK) info(run, "present", 7);
    if (status == SNAPHOOK_STATUS_NONE) info(run, "absent", 6);
  } else if (is(task, "write-create")) {
    status = host->write_create(run->call, text("note"), id, text("{\"a\":1}"), &out);
    if (status == SNAPHOOK_STATUS_OK) info_data(run, &out);
  } else if (is(task, "write-update")) {
    status = host->write_update(run->call, text("note"), id, text("{\"a\":2}"), NULL, &out);
    if (status == SNAPHOOK_STATUS_OK) info_data(run, &out);
  } else if (is(task, "write-delete")) {
    status = host->write_delete(run->call, text("note"), id, NULL, &out);
    if (status == SNAPHOOK_STATUS_OK) info_data(run, &out);
  } else if (is(task, "http-send")) {
    char request[1024];
    int length = snprintf(request, sizeof request, "{\"method\":\"POST\",\"url\":\"%.*s\",\"headers\":[[\"x-a\",\"1\"]]}",
                          (int)id.len, id.ptr);
    snaphook_bytes body = {(const uint8_t *)"hi", 2};
    status = host->http_send(run->call, (snaphook_text){request, (size_t)length}, body, &out, &more);
    if (status == SNAPHOOK_STATUS_OK) joined(run, strtol(after_key(&out, "status"), NULL, 10), &more);
  } else if (is(task, "process-run")) {
    char command[1024];
    int length =
        snprintf(command, sizeof command, "{\"program\":\"%.*s\",\"args\":[\"-\"]}", (int)id.len, id.ptr);
    snaphook_bytes input = {(const uint8_t *)"in", 2};
    snaphook_buffer errors = {0};
    status = host->process_run(run->call, (snaphook_text){command, (size_t)length}, input, &code, &out, &errors);
    if (status == SNAPHOOK_STATUS_OK) joined(run, code, &out);
  } else if (is(task, "secret-get")) {
    status = host->secret_get(run->call, id, &out);
    if (status == SNAPHOOK_STATUS_OK) info(run, (const char *)out.ptr, out.len);
  } else {
    return 0;
  }
  if (status == SNAPHOOK_STATUS_ERROR) info_error(run, &out);
  if (out.handle != 0) host->release(run->call, out.handle);
  return 1;
}

static void line(const Run *run, const char *start, snaphook_text rest) {
  char *whole = malloc(strlen(start) + rest.len + 8);
  int length = sprintf(whole, "%s%.*s", start, rest.ptr == NULL ? 4 : (int)rest.len, rest.ptr == NULL ? "none" : rest.ptr);
  info(run, whole, (size_t)length);
  free(whole);
}

static void tell(const Run *run) {
  static const char *const phases[] = {"preCreate", "postCreate", "preUpdate", "postUpdate", "preDelete", "postDelete"};
  const snaphook_context *context = run->context;
  char whole[1024];
  int length = snprintf(whole, sizeof whole, "%s %.*s@%llu %.*s", phases[context->phase], (int)context->model.len,
                        context->model.ptr, (unsigned long long)context->model_version, (int)context->id.len,
                        context->id.ptr);
  info(run, whole, (size_t)length);
  length = snprintf(whole, sizeof whole, "%.*s %.*s %u", (int)context->request_id.len, context->request_id.ptr,
                    (int)context->time.len, context->time.ptr, context->attempt);
  info(run, whole, (size_t)length);
  line(run, "before ", context->before);
  line(run, "after ", context->after);
  if (context->event_id.ptr == NULL) {
    info(run, "event none", 10);
  } else {
    length = snprintf(whole, sizeof whole, "event %llu %.*s", (unsigned long long)context->event_position,
                      (int)context->event_id.len, context->event_id.ptr);
    info(run, whole, (size_t)length);
  }
}

static void flood(const Run *run) {
  const size_t size = 20000000;
  char *data = malloc(size);
  memset(data, 'x', size);
  memcpy(data, "{\"text\":\"", 9);
  memcpy(data + size - 2, "\"}", 2);
  run->host->answer(run->call, SNAPHOOK_ANSWER_AMEND, (snaphook_bytes){(const uint8_t *)data, size});
  free(data);
}

static void add(const Run *run) {
  snaphook_text data = run->context->after;
  char *more = malloc(data.len + 16);
  size_t start = (size_t)((const char *)memchr(data.ptr, '{', data.len) - data.ptr) + 1;
  memcpy(more, data.ptr, start);
  /* The data is not empty. */
  memcpy(more + start, "\"x\":1,", 6);
  memcpy(more + start + 6, data.ptr + start, data.len - start);
  run->host->answer(run->call, SNAPHOOK_ANSWER_AMEND, (snaphook_bytes){(const uint8_t *)more, data.len + 6});
  free(more);
}

/* Like a panic or a C++ exception: raises an exception of an unknown language. */
static void crash(void) {
  static __thread struct exception {
    uint64_t class;
    void (*cleanup)(int, void *);
    uintptr_t private[6];
  } __attribute__((aligned)) thrown;
  extern int _Unwind_RaiseException(struct exception *);
  memset(&thrown, 0, sizeof thrown);
  _Unwind_RaiseException(&thrown);
}

/* The id of an actor: the first member of a JSON object. */
static snaphook_text actor_id(snaphook_text actor) {
  static const char start[] = "{\"id\":\"";
  const size_t skipped = sizeof start - 1;
  if (actor.len < skipped || memcmp(actor.ptr, start, skipped) != 0) return (snaphook_text){NULL, 0};
  const char *id = actor.ptr + skipped, *end = memchr(id, '"', actor.len - skipped);
  return (snaphook_text){id, end == NULL ? 0 : (size_t)(end - id)};
}

static void handle(uint64_t call, const snaphook_context *context, const snaphook_host *host) {
  const Run run = {call, context, host};
  snaphook_text task = actor_id(context->actor);
  if (is(task, "amend")) return answer(&run, SNAPHOOK_ANSWER_AMEND, "{\"n\":1}");
  if (is(task, "reject")) {
    return answer(&run, SNAPHOOK_ANSWER_REJECT, "{\"message\":\"no\",\"fields\":[{\"pointer\":\"/a\",\"message\":\"bad\"}]}");
  }
  if (is(task, "fail")) return answer(&run, SNAPHOOK_ANSWER_FAIL, "oops");
  if (is(task, "same")) {
    snaphook_bytes same = {(const uint8_t *)context->after.ptr, context->after.len};
    host->answer(call, SNAPHOOK_ANSWER_AMEND, same);
    return;
  }
  if (is(task, "add")) return add(&run);
  if (is(task, "flood")) return flood(&run);
  if (is(task, "crash")) crash();
  if (is(task, "tell")) {
    tell(&run);
  } else if (is(task, "log")) {
    host->log(call, SNAPHOOK_LEVEL_DEBUG, text("d"));
    host->log(call, SNAPHOOK_LEVEL_INFO, text("i"));
    host->log(call, SNAPHOOK_LEVEL_WARN, text("w"));
    host->log(call, SNAPHOOK_LEVEL_ERROR, text("e"));
  } else if (is(task, "loop")) {
    /* Sleeps, so that other tests can use the cores. */
    for (;;) sleep(1);
  } else if (is(task, "talk")) {
    while (host->log(call, SNAPHOOK_LEVEL_INFO, text("x")) == SNAPHOOK_STATUS_OK) {
    }
  } else if (is(task, "shout")) {
    char line[8000];
    memset(line, 'x', sizeof line);
    while (host->log(call, SNAPHOOK_LEVEL_INFO, (snaphook_text){line, sizeof line}) == SNAPHOOK_STATUS_OK) {
    }
  } else if (is(task, "ask")) {
    snaphook_buffer out;
    while (host->read_get(call, text("a"), text("b"), &out) != SNAPHOOK_STATUS_OVER) {
    }
  } else if (!is(task, "accept") && !ask(&run, task)) {
    return answer(&run, SNAPHOOK_ANSWER_FAIL, "no such task");
  }
  answer(&run, SNAPHOOK_ANSWER_ACCEPT, "");
}

static const snaphook_descriptor descriptor = {
    .abi_version = SNAPHOOK_ABI_VERSION,
    .struct_size = sizeof(snaphook_descriptor),
    .name = {"suite", 5},
    .check = handle,
    .react = handle,
};

const snaphook_descriptor *snaphook_hook(void) { return &descriptor; }

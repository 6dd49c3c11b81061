/* Native hooks for Snaphook. Generated from sdk/c/src/lib.rs: do not edit.
   How to use it: docs/hooks/native.md; an example: sdk/c/examples/check.c. */

#ifndef SNAPHOOK_HOOK_H
#define SNAPHOOK_HOOK_H

#include <stddef.h>
#include <stdint.h>

// The version of this interface. Another version is another interface: a library and a server must have the same.
#define SNAPHOOK_ABI_VERSION 1

// Phases, the values of `phase` in `snaphook_context`.
#define SNAPHOOK_PHASE_PRE_CREATE 0

#define SNAPHOOK_PHASE_POST_CREATE 1

#define SNAPHOOK_PHASE_PRE_UPDATE 2

#define SNAPHOOK_PHASE_POST_UPDATE 3

#define SNAPHOOK_PHASE_PRE_DELETE 4

#define SNAPHOOK_PHASE_POST_DELETE 5

// Pre phases: accept the change. Post phases: done. No payload.
#define SNAPHOOK_ANSWER_ACCEPT 1

// Accept the change with the payload as its data, a JSON object. Pre phases; needs the grant `amend`.
#define SNAPHOOK_ANSWER_AMEND 2

// Reject the change. Pre phases. The payload is `{"message": "…", "fields": [{"pointer": "/a", "message": "…"}]}`.
#define SNAPHOOK_ANSWER_REJECT 3

// The hook failed; the payload is a sentence in UTF-8 with the reason.
#define SNAPHOOK_ANSWER_FAIL 4

// The host function succeeded.
#define SNAPHOOK_STATUS_OK 0

// Nothing of that name exists.
#define SNAPHOOK_STATUS_NONE 1

// The call was denied or failed: the buffer contains `{"code": "denied", "message": "…"}`. The hook may continue.
#define SNAPHOOK_STATUS_ERROR 2

// The run is over: it exceeded a limit or its time. Return; an answer is ignored now.
#define SNAPHOOK_STATUS_OVER 3

// The function was used incorrectly: invalid UTF-8, a null pointer, a handle that is unknown or already released. The run
// fails with the reason.
#define SNAPHOOK_STATUS_MISUSE 4

// Levels of log lines.
#define SNAPHOOK_LEVEL_DEBUG 0

#define SNAPHOOK_LEVEL_INFO 1

#define SNAPHOOK_LEVEL_WARN 2

#define SNAPHOOK_LEVEL_ERROR 3

// Text in UTF-8, not terminated by a zero byte. `ptr` is null if there is no text.
typedef struct {
  const char *ptr;
  size_t len;
} snaphook_text;

// One change. Everything it points to is valid until the function returns.
typedef struct {
  // Size of this structure in the host, in bytes.
  size_t struct_size;
  // `SNAPHOOK_PHASE_…`
  uint32_t phase;
  // 1 at first; greater than 1 when a post hook is retried.
  uint32_t attempt;
  // Id and version of the model.
  snaphook_text model;
  uint64_t model_version;
  // Id of the instance.
  snaphook_text id;
  // JSON text of the data before the change; absent for a creation.
  snaphook_text before;
  // JSON text of the data after the change; absent for a deletion.
  snaphook_text after;
  // JSON text of the actor who made the change, `{"id", "kind", "claims"?}`; absent if unknown.
  snaphook_text actor;
  snaphook_text request_id;
  // RFC 3339, UTC, with milliseconds.
  snaphook_text time;
  // Post phases: the event that the hook reacts to. 0 and absent in pre phases.
  uint64_t event_position;
  snaphook_text event_id;
} snaphook_context;

// Bytes. `ptr` may be null if `len` is 0.
typedef struct {
  const uint8_t *ptr;
  size_t len;
} snaphook_bytes;

// The result of a host function. The host owns the memory: it is valid until `release` is called with the handle, at the
// latest until the run ends. Never free it in another way.
typedef struct {
  // 0: no result.
  uint64_t handle;
  const uint8_t *ptr;
  size_t len;
} snaphook_buffer;

// The host functions. `call` is the number that `check` or `react` got; it is invalid after they returned. Functions may be
// called from any thread during the run. Those with a result write it into `out`, and return `SNAPHOOK_STATUS_…`.
typedef struct {
  uint32_t abi_version;
  // Size of this table in the host, in bytes.
  uint32_t struct_size;
  // Sets the result of the run: `SNAPHOOK_ANSWER_…` and its payload, which is copied. Exactly once per run.
  int32_t (*answer)(uint64_t call, uint32_t kind, snaphook_bytes payload);
  // Frees a buffer before the run ends. Once per buffer.
  int32_t (*release)(uint64_t call, uint64_t handle);
  // Writes a line to the hook's own log; `level` is `SNAPHOOK_LEVEL_…`.
  int32_t (*log)(uint64_t call, uint32_t level, snaphook_text message);
  // The instance as JSON: `{"id", "model", "model_version", "revision", "position", "created_at", "updated_at", "data"}`.
  int32_t (*read_get)(uint64_t call, snaphook_text model, snaphook_text id, snaphook_buffer *out);
  // `{"items": […], "next": null}`. `query` is JSON, as in REST: `{"filter": {path: {op: value}}, "sort", "limit", "cursor"}`.
  int32_t (*read_query)(uint64_t call,
                        snaphook_text model,
                        snaphook_text query,
                        snaphook_buffer *out);
  // The event at a position, as JSON.
  int32_t (*read_event)(uint64_t call, uint64_t position, snaphook_buffer *out);
  // Returns the instance. Without `id` the server creates one. Post phases only, like all following functions except `secret_get`.
  int32_t (*write_create)(uint64_t call,
                          snaphook_text model,
                          snaphook_text id,
                          snaphook_text data,
                          snaphook_buffer *out);
  // `expected`: null, or the position that the instance must have.
  int32_t (*write_update)(uint64_t call,
                          snaphook_text model,
                          snaphook_text id,
                          snaphook_text data,
                          const uint64_t *expected,
                          snaphook_buffer *out);
  // Returns the instance before the deletion.
  int32_t (*write_delete)(uint64_t call,
                          snaphook_text model,
                          snaphook_text id,
                          const uint64_t *expected,
                          snaphook_buffer *out);
  // `request` is `{"method": "GET", "url": "…", "headers": [["a", "b"]], "timeout_ms": 1000, "redirect": "follow"}`; all members
  // except `url` are optional. `head` gets `{"status", "url", "redirected", "headers"}`, or the error.
  int32_t (*http_send)(uint64_t call,
                       snaphook_text request,
                       snaphook_bytes body,
                       snaphook_buffer *head,
                       snaphook_buffer *response_body);
  // `command` is `{"program": "/…", "args": […], "env": [["a", "b"]], "timeout_ms": 1000}`; all members except `program` are
  // optional. `code` gets the exit code, 128 + signal if a signal ended the program; `output` gets the error, if there is one.
  int32_t (*process_run)(uint64_t call,
                         snaphook_text command,
                         snaphook_bytes input,
                         int32_t *code,
                         snaphook_buffer *output,
                         snaphook_buffer *error_output);
  int32_t (*secret_get)(uint64_t call, snaphook_text name, snaphook_buffer *out);
} snaphook_host;

// The descriptor of a library; it must not change while the library is loaded. A function sets its result with
// `host->answer`, then returns. It may run on many threads at once.
typedef struct {
  // `SNAPHOOK_ABI_VERSION`
  uint32_t abi_version;
  // `sizeof(snaphook_descriptor)`
  uint32_t struct_size;
  // A name for messages.
  snaphook_text name;
  // Runs in pre phases; null if the library has no hook for them.
  void (*check)(uint64_t call, const snaphook_context *context, const snaphook_host *host);
  // Runs in post phases; null if the library has no hook for them.
  void (*react)(uint64_t call, const snaphook_context *context, const snaphook_host *host);
} snaphook_descriptor;

// The type of `snaphook_hook`. It only returns the descriptor: it must be quick and may be called more than once.
typedef const snaphook_descriptor *(*snaphook_entry)(void);

#endif  /* SNAPHOOK_HOOK_H */

/* What a library exports, under this name. On Windows add __declspec(dllexport). */
#ifdef __cplusplus
extern "C"
#endif
const snaphook_descriptor *snaphook_hook(void);

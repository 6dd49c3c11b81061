/* Native hooks for Snaphook. Generated from sdk/c/src/lib.rs: do not edit.
   Manual: docs/hooks/native.md; example: sdk/c/examples/check.c. */

#ifndef SNAPHOOK_HOOK_H
#define SNAPHOOK_HOOK_H

#include <stddef.h>
#include <stdint.h>

// The version of this interface. A library and a server must have the same.
#define SNAPHOOK_ABI_VERSION 1

// Phases, the values of `phase` in `snaphook_context`.
#define SNAPHOOK_PHASE_PRE_CREATE 0

#define SNAPHOOK_PHASE_POST_CREATE 1

#define SNAPHOOK_PHASE_PRE_UPDATE 2

#define SNAPHOOK_PHASE_POST_UPDATE 3

#define SNAPHOOK_PHASE_PRE_DELETE 4

#define SNAPHOOK_PHASE_POST_DELETE 5

// Pre phases: accept the change. Post phases: the hook has succeeded. The payload is ignored.
#define SNAPHOOK_ANSWER_ACCEPT 1

// Accept the change with the payload as its data, a JSON object. Only when creating and updating; needs the grant `amend`.
#define SNAPHOOK_ANSWER_AMEND 2

// Reject the change. Only in pre phases. The payload is `{"message": "…", "fields": [{"pointer": "/a", "message": "…"}]}`;
// `fields` is optional.
#define SNAPHOOK_ANSWER_REJECT 3

// The hook failed; the payload is a sentence in UTF-8 with the reason.
#define SNAPHOOK_ANSWER_FAIL 4

// The host function succeeded.
#define SNAPHOOK_STATUS_OK 0

// There is no such instance or event. The buffer is not written.
#define SNAPHOOK_STATUS_NONE 1

// The call was denied or failed: the buffer contains `{"code": "denied", "message": "…"}`. The hook may continue.
#define SNAPHOOK_STATUS_ERROR 2

// The run is over: it exceeded a limit or its time. Return; the host ignores all further calls.
#define SNAPHOOK_STATUS_OVER 3

// The function was used incorrectly: invalid UTF-8, a null pointer, a handle that is unknown or already released, a second
// answer. The run fails with the reason.
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
  // Id of the request that caused the change; absent if there is none.
  snaphook_text request_id;
  // Time of the change: RFC 3339, UTC, with milliseconds.
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
// latest until `check` or `react` returns. Do not free it yourself.
typedef struct {
  // Never 0 in a result. Set it to 0 beforehand to see whether the host function wrote one.
  uint64_t handle;
  const uint8_t *ptr;
  size_t len;
} snaphook_buffer;

// The host functions. `call` is the number that `check` or `react` received; it is invalid once the function has returned.
// Until then, host functions may be called from any thread. They return `SNAPHOOK_STATUS_…` and write their result, or the
// error, into `out`. Their arguments need to be valid only until they return.
typedef struct {
  uint32_t abi_version;
  // Size of this table in the host, in bytes.
  uint32_t struct_size;
  // Sets the result of the run: `SNAPHOOK_ANSWER_…` and its payload, at most 16 MiB. Exactly once per run.
  int32_t (*answer)(uint64_t call, uint32_t kind, snaphook_bytes payload);
  // Frees a buffer before the function returns; at most once per buffer.
  int32_t (*release)(uint64_t call, uint64_t handle);
  // Writes a line to the hook's own log; `level` is `SNAPHOOK_LEVEL_…`.
  int32_t (*log)(uint64_t call, uint32_t level, snaphook_text message);
  // The instance as JSON: `{"id", "model", "model_version", "revision", "position", "created_at", "updated_at", "data"}`.
  int32_t (*read_get)(uint64_t call, snaphook_text model, snaphook_text id, snaphook_buffer *out);
  // A page: `{"items": […], "next": null}`. `query` is JSON: `{"filter": {path: {op: value}}, "sort", "limit", "cursor"}`, all
  // members optional, with values as in REST.
  int32_t (*read_query)(uint64_t call,
                        snaphook_text model,
                        snaphook_text query,
                        snaphook_buffer *out);
  // The event at a position, as JSON.
  int32_t (*read_event)(uint64_t call, uint64_t position, snaphook_buffer *out);
  // Returns the instance. If `id.ptr` is null, the server creates an id. Only in post phases, like all functions below except
  // `secret_get`. Without a `read` grant for the model, `data` in the result is the data that the hook sent.
  int32_t (*write_create)(uint64_t call,
                          snaphook_text model,
                          snaphook_text id,
                          snaphook_text data,
                          snaphook_buffer *out);
  // `expected`: null, or the position that the instance must have; otherwise the error has the code `conflict`.
  int32_t (*write_update)(uint64_t call,
                          snaphook_text model,
                          snaphook_text id,
                          snaphook_text data,
                          const uint64_t *expected,
                          snaphook_buffer *out);
  // Returns the instance before the deletion, without a `read` grant for the model with `null` as `data`.
  int32_t (*write_delete)(uint64_t call,
                          snaphook_text model,
                          snaphook_text id,
                          const uint64_t *expected,
                          snaphook_buffer *out);
  // `request` is `{"method": "GET", "url": "…", "headers": [["a", "b"]], "timeout_ms": 1000, "redirect": "follow"}`; all members
  // except `url` are optional. `head` gets `{"status", "url", "redirected", "headers"}`, or the error; then `response_body` is
  // not written.
  int32_t (*http_send)(uint64_t call,
                       snaphook_text request,
                       snaphook_bytes body,
                       snaphook_buffer *head,
                       snaphook_buffer *response_body);
  // `command` is `{"program": "/…", "args": […], "env": [["a", "b"]], "timeout_ms": 1000}`; all members except `program` are
  // optional. `code` gets the exit code, or 128 + the signal that ended the program; `output` gets what the program wrote to
  // standard output, `error_output` to standard error. If the call fails, `output` gets the error and the others are not
  // written.
  int32_t (*process_run)(uint64_t call,
                         snaphook_text command,
                         snaphook_bytes input,
                         int32_t *code,
                         snaphook_buffer *output,
                         snaphook_buffer *error_output);
  // The secret as text. A secret that does not exist is an error with the code `not-found`.
  int32_t (*secret_get)(uint64_t call, snaphook_text name, snaphook_buffer *out);
} snaphook_host;

// The descriptor of a library. Everything that it points to must not change until the process ends: libraries are not
// unloaded. `check` and `react` set their result with `host->answer`, then return. They may run on many threads at once.
typedef struct {
  // `SNAPHOOK_ABI_VERSION`
  uint32_t abi_version;
  // `sizeof(snaphook_descriptor)`
  uint32_t struct_size;
  // A name for messages, 1 to 200 bytes.
  snaphook_text name;
  // Runs in pre phases; null if the library has no hook for them.
  void (*check)(uint64_t call, const snaphook_context *context, const snaphook_host *host);
  // Runs in post phases; null if the library has no hook for them.
  void (*react)(uint64_t call, const snaphook_context *context, const snaphook_host *host);
} snaphook_descriptor;

// The type of `snaphook_hook`. It only returns the descriptor: it must be quick and may be called more than once.
typedef const snaphook_descriptor *(*snaphook_entry)(void);

#endif  /* SNAPHOOK_HOOK_H */

/* The function that a library exports. On Windows add __declspec(dllexport). */
#ifdef __cplusplus
extern "C"
#endif
const snaphook_descriptor *snaphook_hook(void);

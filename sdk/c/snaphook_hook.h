/* Native hooks for Snaphook. Generated from sdk/c/src/lib.rs: do not edit.
   How to use it: docs/hooks/native.md; an example: sdk/c/examples/check.c. */

#ifndef SNAPHOOK_HOOK_H
#define SNAPHOOK_HOOK_H

#include <stddef.h>
#include <stdint.h>

// The version of this interface. Another version is another interface: a library and a server must have the same.
#define SNAPHOOK_ABI_VERSION 1

// Phases, as they stand in `snaphook_context`.
#define SNAPHOOK_PHASE_PRE_CREATE 0

#define SNAPHOOK_PHASE_POST_CREATE 1

#define SNAPHOOK_PHASE_PRE_UPDATE 2

#define SNAPHOOK_PHASE_POST_UPDATE 3

#define SNAPHOOK_PHASE_PRE_DELETE 4

#define SNAPHOOK_PHASE_POST_DELETE 5

// The change may go on; what happened was dealt with. No payload.
#define SNAPHOOK_ANSWER_ACCEPT 1

// The change may go on with the payload as its data, a JSON object. Pre phases; needs the grant `amend`.
#define SNAPHOOK_ANSWER_AMEND 2

// The change is refused. Pre phases. The payload is `{"message": "…", "fields": [{"pointer": "/a", "message": "…"}]}`.
#define SNAPHOOK_ANSWER_REJECT 3

// The hook failed; the payload is a sentence in UTF-8 that says why.
#define SNAPHOOK_ANSWER_FAIL 4

// A host function did what it was asked.
#define SNAPHOOK_STATUS_OK 0

// There is nothing of that name.
#define SNAPHOOK_STATUS_NONE 1

// It was refused or went wrong: the buffer holds `{"code": "denied", "message": "…"}`. The hook may go on.
#define SNAPHOOK_STATUS_ERROR 2

// The call is over: a limit was broken or its time is up. Return; whatever is answered now is ignored.
#define SNAPHOOK_STATUS_OVER 3

// The function was used wrongly: no UTF-8, a null pointer, a handle that is unknown or was released before. The call
// fails and says how.
#define SNAPHOOK_STATUS_MISUSE 4

// Levels of log lines.
#define SNAPHOOK_LEVEL_DEBUG 0

#define SNAPHOOK_LEVEL_INFO 1

#define SNAPHOOK_LEVEL_WARN 2

#define SNAPHOOK_LEVEL_ERROR 3

// Text in UTF-8, not ended by a zero byte. `ptr` is null where there is none.
typedef struct {
  const char *ptr;
  size_t len;
} snaphook_text;

// One change. Everything it points to stays until the function returns.
typedef struct {
  // Bytes of this structure, as the host has it.
  size_t struct_size;
  // `SNAPHOOK_PHASE_…`
  uint32_t phase;
  // 1 and up; greater than 1 when a post hook is tried again.
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
  // JSON text of who asked for the change, `{"id", "kind", "claims"?}`; absent if nobody said.
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

// What a host function gives. The memory is the host's: it stays until `release` is called with the handle, at the
// latest until the call ends. Never free it in another way.
typedef struct {
  // 0: nothing was given.
  uint64_t handle;
  const uint8_t *ptr;
  size_t len;
} snaphook_buffer;

// What the host does for a call. `call` is the number that `check` or `react` was given; it means nothing after they
// returned. Functions may be called from any thread while the call runs. Those that give something write into `out`,
// and answer with `SNAPHOOK_STATUS_…`.
typedef struct {
  uint32_t abi_version;
  // Bytes of this table, as the host has it.
  uint32_t struct_size;
  // The answer of the call: `SNAPHOOK_ANSWER_…` and its payload, which is copied. Exactly once per call.
  int32_t (*answer)(uint64_t call, uint32_t kind, snaphook_bytes payload);
  // Gives a buffer back before the call ends. Once per buffer.
  int32_t (*release)(uint64_t call, uint64_t handle);
  // A line for the hook's own log; `level` is `SNAPHOOK_LEVEL_…`.
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
  // Gives the instance. `id` may be absent: then the server makes one. Post phases, as all functions that follow but `secret_get`.
  int32_t (*write_create)(uint64_t call,
                          snaphook_text model,
                          snaphook_text id,
                          snaphook_text data,
                          snaphook_buffer *out);
  // `expected`: null, or the position that the instance must be at.
  int32_t (*write_update)(uint64_t call,
                          snaphook_text model,
                          snaphook_text id,
                          snaphook_text data,
                          const uint64_t *expected,
                          snaphook_buffer *out);
  // Gives the instance as it was.
  int32_t (*write_delete)(uint64_t call,
                          snaphook_text model,
                          snaphook_text id,
                          const uint64_t *expected,
                          snaphook_buffer *out);
  // `request` is `{"method": "GET", "url": "…", "headers": [["a", "b"]], "timeout_ms": 1000, "redirect": "follow"}`; all but
  // `url` may be left out. `head` gets `{"status", "url", "redirected", "headers"}`.
  int32_t (*http_send)(uint64_t call,
                       snaphook_text request,
                       snaphook_bytes body,
                       snaphook_buffer *head,
                       snaphook_buffer *response_body);
  // `command` is `{"program": "/…", "args": […], "env": [["a", "b"]], "timeout_ms": 1000}`; all but `program` may be left
  // out. `code` gets the exit code, 128 + signal if a signal ended it.
  int32_t (*process_run)(uint64_t call,
                         snaphook_text command,
                         snaphook_bytes input,
                         int32_t *code,
                         snaphook_buffer *output,
                         snaphook_buffer *error_output);
  int32_t (*secret_get)(uint64_t call, snaphook_text name, snaphook_buffer *out);
} snaphook_host;

// What a library is; it stays as it is for as long as the library is loaded. A function answers through `host->answer`,
// then returns. It may run on many threads at once.
typedef struct {
  // `SNAPHOOK_ABI_VERSION`
  uint32_t abi_version;
  // `sizeof(snaphook_descriptor)`
  uint32_t struct_size;
  // A name for messages.
  snaphook_text name;
  // Runs in pre phases; null if the library has nothing for them.
  void (*check)(uint64_t call, const snaphook_context *context, const snaphook_host *host);
  // Runs in post phases; null if the library has nothing for them.
  void (*react)(uint64_t call, const snaphook_context *context, const snaphook_host *host);
} snaphook_descriptor;

// The type of `snaphook_hook`. It only gives the descriptor: it must be quick and may be called again.
typedef const snaphook_descriptor *(*snaphook_entry)(void);

#endif  /* SNAPHOOK_HOOK_H */

/* What a library exports, under this name. On Windows add __declspec(dllexport). */
#ifdef __cplusplus
extern "C"
#endif
const snaphook_descriptor *snaphook_hook(void);

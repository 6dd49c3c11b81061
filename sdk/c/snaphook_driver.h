/* Libraries with drivers for Snaphook. Generated from sdk/driver/abi/src/lib.rs: do not edit.
   Messages: sdk/driver/proto/driver.proto; an example: sdk/c/examples/secure.c. */

#ifndef SNAPHOOK_DRIVER_H
#define SNAPHOOK_DRIVER_H

#include <stddef.h>
#include <stdint.h>

// The version of this interface. A library and a server must have the same.
#define SNAPHOOK_PLUGIN_ABI_VERSION 1

// The call succeeded. The response is the method's message.
#define SNAPHOOK_PLUGIN_OK 0

// The call failed. The response is a message `Error`.
#define SNAPHOOK_PLUGIN_ERROR 1

// Text in UTF-8, not terminated by a zero byte.
typedef struct {
  const char *ptr;
  size_t len;
} snaphook_plugin_text;

// Bytes. `ptr` may be null if `len` is 0.
typedef struct {
  const uint8_t *ptr;
  size_t len;
} snaphook_plugin_bytes;

// How a call is completed: by `complete(call, status, response)`, exactly once, whether the call succeeded, failed or
// was cancelled.
typedef struct {
  // The number of the call, which is never used again.
  uint64_t call;
  // May be called from any thread, before or after `open` or `call` returns. `status` is `SNAPHOOK_PLUGIN_OK` or
  // `SNAPHOOK_PLUGIN_ERROR`. The server copies the response, at most 256 MiB, before this returns.
  void (*complete)(uint64_t call, uint32_t status, snaphook_plugin_bytes response);
} snaphook_plugin_completion;

// The descriptor of a library. Everything that it points to must not change until the process ends: libraries are not unloaded.
//
// Functions may be called from any thread, many at once, and must not wait: `open` and `call` start their work, return,
// and complete it later. Work that takes only microseconds may be done, and completed, before they return. The bytes of
// a request are valid until the function returns.
typedef struct {
  // `SNAPHOOK_PLUGIN_ABI_VERSION`
  uint32_t abi_version;
  // `sizeof(snaphook_plugin)`
  uint32_t struct_size;
  // 1 to 200 bytes.
  snaphook_plugin_text name;
  // 1 to 200 bytes.
  snaphook_plugin_text version;
  // A message `Plugin` of driver.proto with the same name and version.
  snaphook_plugin_bytes description;
  // Opens a store. The request is a message `OpenRequest`, the response an `OpenResponse`.
  void (*open)(snaphook_plugin_bytes request, snaphook_plugin_completion completion);
  // Calls a method of an opened store. `handle` is that of the `OpenResponse`, `method` a `SNAPHOOK_METHOD_…`. After a
  // `…_CLOSE` the server begins no call with the handle, but one that it began before may arrive later.
  void (*call)(uint64_t handle,
               uint32_t method,
               snaphook_plugin_bytes request,
               snaphook_plugin_completion completion);
  // The server no longer waits for this call: the library may end it early, but must complete it like any other. Called after
  // `open` or `call` has returned; the call may already be complete. Null if calls cannot be cancelled.
  void (*cancel)(uint64_t call);
} snaphook_plugin;

// The type of `snaphook_plugin_v1`. It returns the descriptor; it must be quick and may be called more than once.
typedef const snaphook_plugin *(*snaphook_plugin_entry)(void);

#endif  /* SNAPHOOK_DRIVER_H */

/* Methods of stores, the values of `method` in `call`. */
#define SNAPHOOK_METHOD_SECURE_HEALTH 1
#define SNAPHOOK_METHOD_SECURE_CLOSE 2
#define SNAPHOOK_METHOD_SECURE_GET 3
#define SNAPHOOK_METHOD_SECURE_PUT 4
#define SNAPHOOK_METHOD_SECURE_DELETE 5
#define SNAPHOOK_METHOD_SECURE_LIST 6
#define SNAPHOOK_METHOD_EVENT_HEALTH 101
#define SNAPHOOK_METHOD_EVENT_CLOSE 102
#define SNAPHOOK_METHOD_EVENT_APPEND 103
#define SNAPHOOK_METHOD_EVENT_READ 104
#define SNAPHOOK_METHOD_EVENT_LAST 105
#define SNAPHOOK_METHOD_EVENT_HEAD 106
#define SNAPHOOK_METHOD_EVENT_RESERVE 107
#define SNAPHOOK_METHOD_EVENT_FORGET_CLAIMS 108
#define SNAPHOOK_METHOD_EVENT_NEXT_CLAIM 109
#define SNAPHOOK_METHOD_EVENT_HOLDER 110
#define SNAPHOOK_METHOD_EVENT_CREATE_GROUP 111
#define SNAPHOOK_METHOD_EVENT_DROP_GROUP 112
#define SNAPHOOK_METHOD_EVENT_GROUPS 113
#define SNAPHOOK_METHOD_EVENT_CLAIM 114
#define SNAPHOOK_METHOD_EVENT_ACK 115
#define SNAPHOOK_METHOD_EVENT_RELEASE 116
#define SNAPHOOK_METHOD_EVENT_RENEW 117
#define SNAPHOOK_METHOD_EVENT_IS_DONE 118
#define SNAPHOOK_METHOD_EVENT_LAG 119
#define SNAPHOOK_METHOD_EVENT_PUT_BLOB 120
#define SNAPHOOK_METHOD_EVENT_GET_BLOB 121
#define SNAPHOOK_METHOD_EVENT_EXPORT 122
#define SNAPHOOK_METHOD_EVENT_EXPORT_NEXT 123
#define SNAPHOOK_METHOD_EVENT_EXPORT_CLOSE 124
#define SNAPHOOK_METHOD_EVENT_IMPORT 125
#define SNAPHOOK_METHOD_EVENT_FINISH_IMPORT 126
#define SNAPHOOK_METHOD_EVENT_ANNOUNCE 127
#define SNAPHOOK_METHOD_EVENT_NODES 128
#define SNAPHOOK_METHOD_MODEL_HEALTH 201
#define SNAPHOOK_METHOD_MODEL_CLOSE 202
#define SNAPHOOK_METHOD_MODEL_DEFINE 203
#define SNAPHOOK_METHOD_MODEL_PREPARE 204
#define SNAPHOOK_METHOD_MODEL_DISCARD 205
#define SNAPHOOK_METHOD_MODEL_BEGIN_REPLAY 206
#define SNAPHOOK_METHOD_MODEL_END_REPLAY 207
#define SNAPHOOK_METHOD_MODEL_DROP_MODEL 208
#define SNAPHOOK_METHOD_MODEL_APPLY 209
#define SNAPHOOK_METHOD_MODEL_LOG 210
#define SNAPHOOK_METHOD_MODEL_CHECKPOINT 211
#define SNAPHOOK_METHOD_MODEL_DEFINITIONS 212
#define SNAPHOOK_METHOD_MODEL_GET 213
#define SNAPHOOK_METHOD_MODEL_QUERY 214
#define SNAPHOOK_METHOD_MODEL_COUNT 215
#define SNAPHOOK_METHOD_MODEL_RESET 216
#define SNAPHOOK_METHOD_ERROR_HEALTH 301
#define SNAPHOOK_METHOD_ERROR_CLOSE 302
#define SNAPHOOK_METHOD_ERROR_RECORD 303
#define SNAPHOOK_METHOD_ERROR_LIST 304
#define SNAPHOOK_METHOD_ERROR_COUNT 305
#define SNAPHOOK_METHOD_ERROR_GET 306
#define SNAPHOOK_METHOD_ERROR_REMOVE 307

/* The function that a library exports. On Windows add __declspec(dllexport). */
#ifdef __cplusplus
extern "C"
#endif
const snaphook_plugin *snaphook_plugin_v1(void);

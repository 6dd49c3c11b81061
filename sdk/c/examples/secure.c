/* A driver in C: secure storage in memory.

   Build it with `cc -shared -fPIC -pthread -I sdk/c -o libsecure.so sdk/c/examples/secure.c` and put it into the plugins
   directory. sdk/driver/proto/driver.proto describes the messages, sdk/driver/src/secure_store.rs what each
   method must do. */
#include "snaphook_driver.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "protobuf.h"

#define NAME "memory-c"
#define VERSION "1.0.0"

/* From driver.proto. */
enum { STORE_SECURE = 1 };
enum { KIND_UNEXPECTED = 0, KIND_FULL = 3, KIND_UNSUPPORTED = 5, KIND_CONFLICT = 6, KIND_INVALID = 7 };

/* ---- data */

typedef struct {
  const uint8_t *ptr;
  size_t len;
} slice;

/* A secret in the list of its store, which is sorted by name. Name and bytes follow the structure in memory. */
typedef struct secret {
  struct secret *next;
  uint64_t version;
  slice name, bytes;
} secret;

typedef struct store {
  struct store *next;
  uint64_t handle;
  secret *secrets;
} store;

/* All stores, and the lock for everything in them: many threads call the driver at once. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static store *stores;
static uint64_t last_handle;

static int compare(slice a, slice b) {
  size_t len = a.len < b.len ? a.len : b.len;
  int order = len ? memcmp(a.ptr, b.ptr, len) : 0;
  return order ? order : (a.len > b.len) - (a.len < b.len);
}

/* The link to the secret with this name, or to its place in the order. */
static secret **find(store *store, slice name) {
  secret **link = &store->secrets;
  while (*link && compare((*link)->name, name) < 0) link = &(*link)->next;
  return link;
}

static bool is_there(secret **link, slice name) {
  return *link && compare((*link)->name, name) == 0;
}

static secret *new_secret(slice name, slice bytes, uint64_t version) {
  secret *made = malloc(sizeof(secret) + name.len + bytes.len);
  if (!made) return NULL;
  uint8_t *data = (uint8_t *)(made + 1);
  if (name.len) memcpy(data, name.ptr, name.len);
  if (bytes.len) memcpy(data + name.len, bytes.ptr, bytes.len);
  *made = (secret){
      .version = version, .name = {data, name.len}, .bytes = {data + name.len, bytes.len}};
  return made;
}

static void remove_secret(secret **link) {
  secret *removed = *link;
  *link = removed->next;
  free(removed);
}

/* ---- responses */

/* The result of a call: a response, or an error if `message` is set. */
typedef struct {
  pb_writer response;
  uint32_t kind;
  const char *operation, *message;
} answer;

static answer failed(uint32_t kind, const char *operation, const char *message) {
  return (answer){.kind = kind, .operation = operation, .message = message};
}

/* Completes a call. The server copies the bytes before `complete` returns. */
static void complete(snaphook_plugin_completion completion, answer answer) {
  uint32_t status = SNAPHOOK_PLUGIN_OK;
  if (!answer.message && answer.response.is_broken) {
    free(answer.response.ptr);
    answer = failed(KIND_UNEXPECTED, "call", "no memory for the response");
  }
  if (answer.message) {
    status = SNAPHOOK_PLUGIN_ERROR;
    answer.response = (pb_writer){0};
    pb_write_integer(&answer.response, 1, answer.kind);
    pb_write_text(&answer.response, 2, answer.operation);
    pb_write_text(&answer.response, 3, answer.message);
  }
  snaphook_plugin_bytes bytes = {answer.response.ptr, answer.response.len};
  completion.complete(completion.call, status, bytes);
  free(answer.response.ptr);
}

/* ---- methods */

/* The fields of all requests to a secure store; each request uses some of them. */
typedef struct {
  slice text; /* field 1: name or prefix */
  slice bytes;
  bool has_expected;
  uint64_t expected;
} request;

static bool read_request(snaphook_plugin_bytes bytes, request *request) {
  pb_reader reader = pb_read(bytes.ptr, bytes.len);
  pb_field field;
  while (pb_next(&reader, &field)) {
    switch (field.number) {
      case 1:
        request->text = (slice){field.ptr, field.len};
        break;
      case 2:
        request->bytes = (slice){field.ptr, field.len};
        break;
      case 3:
        request->has_expected = true;
        request->expected = field.value;
        break;
    }
  }
  return !reader.is_broken;
}

static answer get(store *store, const request *request) {
  answer answer = {0};
  secret **link = find(store, request->text);
  if (is_there(link, request->text)) {
    pb_writer sealed = {0};
    pb_write_bytes(&sealed, 1, (*link)->bytes.ptr, (*link)->bytes.len);
    pb_write_integer(&sealed, 2, (*link)->version);
    pb_write_message(&answer.response, 1, &sealed);
  }
  return answer;
}

static answer put(store *store, const request *request) {
  secret **link = find(store, request->text);
  bool is_present = is_there(link, request->text);
  uint64_t version = is_present ? (*link)->version : 0;
  if (request->has_expected && request->expected != version)
    return failed(KIND_CONFLICT, "put", "the secret has another version");
  secret *made = new_secret(request->text, request->bytes, version + 1);
  if (!made) return failed(KIND_FULL, "put", "no memory for the secret");
  if (is_present) remove_secret(link);
  made->next = *link;
  *link = made;
  answer answer = {0};
  pb_write_integer(&answer.response, 1, made->version);
  return answer;
}

static answer delete(store *store, const request *request) {
  answer answer = {0};
  secret **link = find(store, request->text);
  if (is_there(link, request->text)) {
    remove_secret(link);
    pb_write_integer(&answer.response, 1, true);
  }
  return answer;
}

static answer list(store *store, const request *request) {
  answer answer = {0};
  slice prefix = request->text;
  for (secret *at = *find(store, prefix); at; at = at->next) {
    if (at->name.len < prefix.len || compare((slice){at->name.ptr, prefix.len}, prefix) != 0) break;
    pb_write_bytes(&answer.response, 1, at->name.ptr, at->name.len);
  }
  return answer;
}

static void close_store(store **link) {
  store *closed = *link;
  *link = closed->next;
  while (closed->secrets) remove_secret(&closed->secrets);
  free(closed);
}

static answer carry_out(uint64_t handle, uint32_t method, snaphook_plugin_bytes bytes) {
  request request = {0};
  if (!read_request(bytes, &request)) return failed(KIND_INVALID, "call", "the request cannot be read");
  store **link = &stores;
  while (*link && (*link)->handle != handle) link = &(*link)->next;
  if (!*link) return failed(KIND_INVALID, "call", "there is no such store");
  switch (method) {
    case SNAPHOOK_METHOD_SECURE_HEALTH:
      return (answer){0};
    case SNAPHOOK_METHOD_SECURE_CLOSE:
      close_store(link);
      return (answer){0};
    case SNAPHOOK_METHOD_SECURE_GET:
      return get(*link, &request);
    case SNAPHOOK_METHOD_SECURE_PUT:
      return put(*link, &request);
    case SNAPHOOK_METHOD_SECURE_DELETE:
      return delete (*link, &request);
    case SNAPHOOK_METHOD_SECURE_LIST:
      return list(*link, &request);
    default:
      return failed(KIND_UNSUPPORTED, "call", "this driver does not have the method");
  }
}

/* ---- functions of the descriptor: each call takes microseconds, so it is completed before the function returns */

static void call(uint64_t handle, uint32_t method, snaphook_plugin_bytes request,
                 snaphook_plugin_completion completion) {
  pthread_mutex_lock(&lock);
  answer answer = carry_out(handle, method, request);
  pthread_mutex_unlock(&lock);
  complete(completion, answer);
}

static void open_store(snaphook_plugin_bytes request, snaphook_plugin_completion completion) {
  pb_reader reader = pb_read(request.ptr, request.len);
  pb_field field;
  uint64_t kind = 0;
  while (pb_next(&reader, &field))
    if (field.number == 2) kind = field.value;
  store *opened = calloc(1, sizeof(store));
  if (reader.is_broken || kind != STORE_SECURE || !opened) {
    free(opened);
    complete(completion, failed(KIND_UNSUPPORTED, "open", "this driver provides secure storage only"));
    return;
  }
  pthread_mutex_lock(&lock);
  opened->handle = ++last_handle;
  opened->next = stores;
  stores = opened;
  pthread_mutex_unlock(&lock);
  /* `OpenResponse`. Capabilities that are not set are those that the driver does not have. */
  answer answer = {0};
  pb_writer capabilities = {0};
  pb_write_integer(&answer.response, 1, opened->handle);
  pb_write_message(&answer.response, 2, &capabilities);
  complete(completion, answer);
}

/* ---- the descriptor */

static snaphook_plugin plugin = {
    .abi_version = SNAPHOOK_PLUGIN_ABI_VERSION,
    .struct_size = sizeof(snaphook_plugin),
    .name = {NAME, sizeof(NAME) - 1},
    .version = {VERSION, sizeof(VERSION) - 1},
    .open = open_store,
    .call = call,
};

/* The message `Plugin`: one driver with one store and no settings. */
static void describe(void) {
  pb_writer driver = {0}, description = {0};
  pb_write_text(&driver, 1, NAME);
  pb_write_integer(&driver, 2, STORE_SECURE);
  pb_write_text(&description, 1, NAME);
  pb_write_text(&description, 2, VERSION);
  pb_write_message(&description, 3, &driver);
  plugin.description = (snaphook_plugin_bytes){description.ptr, description.len};
}

const snaphook_plugin *snaphook_plugin_v1(void) {
  static pthread_once_t described = PTHREAD_ONCE_INIT;
  pthread_once(&described, describe);
  return &plugin;
}

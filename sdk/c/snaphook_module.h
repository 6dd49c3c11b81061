/* Server modules for Snaphook. Generated from sdk/module/abi/src/lib.rs: do not edit. */

#ifndef SNAPHOOK_MODULE_H
#define SNAPHOOK_MODULE_H

#include <stddef.h>
#include <stdint.h>

/* One request and its response, inside a hook. The handle is valid until the hook returns, on the thread that runs
   the hook, and so are the texts and bytes that the host's functions return for it. */
typedef struct snaphook_module_exchange snaphook_module_exchange;

/* Where a filter writes. Valid until the function returns, on the thread that runs it. */
typedef struct snaphook_module_output snaphook_module_output;

// The version of this interface. A library and a server must have the same.
#define SNAPHOOK_MODULE_ABI_VERSION 1

// Flag of a module: its hooks may block, so the server runs them on separate threads for the module.
#define SNAPHOOK_MODULE_BLOCKING 1

// Flag of a module: the server reads the whole request body, up to `max-body`, before `before_request` and `request`.
#define SNAPHOOK_MODULE_REQUEST_WHOLE 2

// Flag of a module: the server collects the whole response body, up to `max-body`, before `response`; a larger one becomes an
// error. A stream of events, which never ends, and the response to HEAD are not collected.
#define SNAPHOOK_MODULE_RESPONSE_WHOLE 4

// Result of a hook: it declined, the next module is called.
#define SNAPHOOK_MODULE_DECLINED 0

// Result of a hook: handled; no later module is called for this hook. Also the result of functions that succeeded.
#define SNAPHOOK_MODULE_OK 1

// Result of a request hook that has called `host->token`: it waits. The module calls `host->resume` when it can continue, and
// the server then calls the same hook again. The time limit applies to all waits of a hook together; beyond it the request
// ends with status 504.
#define SNAPHOOK_MODULE_PENDING 2

// Result of a hook: it failed, for instance with an exception. The request ends with status 500, and the server counts the
// failure. Also the result of functions that reject a value or a handle.
#define SNAPHOOK_MODULE_FAILED 3

// Result of a request hook: from here to 599, the HTTP status of an error. No later module is called for this hook. The server
// creates the response to the error and calls `request_error`, at most once per request.
#define SNAPHOOK_MODULE_STATUS_MIN 400

// Side of an exchange: the request, or bytes on the way to the server.
#define SNAPHOOK_MODULE_REQUEST 0

// Side of an exchange: the response, or bytes on the way to the peer.
#define SNAPHOOK_MODULE_RESPONSE 1

// Text of a request: its method.
#define SNAPHOOK_MODULE_METHOD 0

// Text of a request: path and query.
#define SNAPHOOK_MODULE_URI 1

// Text of a request: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`. It cannot be changed.
#define SNAPHOOK_MODULE_PROTOCOL 2

// Text of a request: the requested host, with the port if the request has one; empty if it names no host. It cannot be
// changed.
#define SNAPHOOK_MODULE_HOST 3

// Text of a request: address and port of the peer, or `unix`. It cannot be changed.
#define SNAPHOOK_MODULE_PEER 4

// Text of a response: the reason after the status in HTTP/1. Null if there is no response, or if its reason is the standard
// one.
#define SNAPHOOK_MODULE_REASON 5

// Levels of `host->log`.
#define SNAPHOOK_MODULE_LOG_ERROR 1

#define SNAPHOOK_MODULE_LOG_WARN 2

#define SNAPHOOK_MODULE_LOG_INFO 3

#define SNAPHOOK_MODULE_LOG_DEBUG 4

// Text in UTF-8, not terminated by a zero byte. `ptr` may be null if `len` is 0.
typedef struct snaphook_module_text {
  const char *ptr;
  size_t len;
} snaphook_module_text;

// Bytes. `ptr` may be null if `len` is 0; for optional values, null means absent.
typedef struct snaphook_module_bytes {
  const uint8_t *ptr;
  size_t len;
} snaphook_module_bytes;

// A header line. Names are in lowercase; values are bytes, mostly ASCII.
typedef struct snaphook_module_header {
  struct snaphook_module_bytes name;
  struct snaphook_module_bytes value;
} snaphook_module_header;

// The server's functions. The table is valid until the process ends. Arguments need to be valid only until the function
// returns. Functions that change something return `OK`, or `FAILED` if the value or the handle is invalid, the current hook
// may not change it, or a limit is reached. The others return null or 0 for an invalid handle.
typedef struct snaphook_module_host {
  // `SNAPHOOK_MODULE_ABI_VERSION` of the server
  uint32_t abi_version;
  // `sizeof(snaphook_module_host)` of the server
  uint32_t struct_size;
  // Identifies the module in `log`.
  uint64_t module;
  // Writes a line to the server's log, from any thread. A line is truncated to 8 KiB.
  void (*log)(uint64_t module, uint32_t level, struct snaphook_module_text message);
  // Returns a number for `resume`, for a hook that will return `PENDING`. Calls within one hook return the same number.
  uint64_t (*token)(snaphook_module_exchange *exchange);
  // Makes the server call the hook that returned `PENDING` again. May be called from any thread, also before that hook returns.
  // A token works once, and has no effect if its hook no longer waits.
  void (*resume)(uint64_t token);
  // A text of the request or the response: `SNAPHOOK_MODULE_METHOD` and so on.
  struct snaphook_module_bytes (*text)(snaphook_module_exchange *exchange, uint32_t what);
  // Changes a text: of the request in `before_request`, of the response in `request`, `request_error` and `response`. A method
  // has at most 64 bytes and is not `CONNECT`; path and query begin with `/` and have at most 64 KiB; a reason has at most 512
  // bytes.
  uint32_t (*set_text)(snaphook_module_exchange *exchange,
                       uint32_t what,
                       struct snaphook_module_bytes value);
  // 1 if the request came over an encrypted connection.
  uint32_t (*is_secure)(snaphook_module_exchange *exchange);
  // The first value of a header, or null. `of` is `SNAPHOOK_MODULE_REQUEST` or `…_RESPONSE`.
  struct snaphook_module_bytes (*header)(snaphook_module_exchange *exchange,
                                         uint32_t of,
                                         struct snaphook_module_bytes name);
  // Writes up to `capacity` headers and returns how many headers there are. `headers` may be null.
  size_t (*headers)(snaphook_module_exchange *exchange,
                    uint32_t of,
                    struct snaphook_module_header *headers,
                    size_t capacity);
  // Replaces all values of a header, on the side that `set_text` may change. There may be 256 headers; a name and a value have at
  // most 64 KiB. Fails for headers that frame a message, such as `content-length`: only the server sets them.
  uint32_t (*set_header)(snaphook_module_exchange *exchange,
                         uint32_t of,
                         struct snaphook_module_bytes name,
                         struct snaphook_module_bytes value);
  // Adds a value to a header; the rules of `set_header` apply.
  uint32_t (*add_header)(snaphook_module_exchange *exchange,
                         uint32_t of,
                         struct snaphook_module_bytes name,
                         struct snaphook_module_bytes value);
  // Removes all values of a header; the rules of `set_header` apply.
  uint32_t (*remove_header)(snaphook_module_exchange *exchange,
                            uint32_t of,
                            struct snaphook_module_bytes name);
  // The status of the response; 0 if there is none yet.
  uint32_t (*status)(snaphook_module_exchange *exchange);
  // Sets the status, 200 to 599. Without this call, a response that `request` creates has status 200.
  uint32_t (*set_status)(snaphook_module_exchange *exchange, uint32_t status);
  // A body that is in memory, because a module has the flag for whole bodies or has set it; otherwise null. The body of a request
  // is empty once the server has handled the request.
  struct snaphook_module_bytes (*body)(snaphook_module_exchange *exchange, uint32_t of);
  // Replaces a body, on the side that `set_text` may change, with one of at most `max-body` bytes. The server sets
  // `content-length`. Also fails if the server's memory for requests is used up.
  uint32_t (*set_body)(snaphook_module_exchange *exchange,
                       uint32_t of,
                       struct snaphook_module_bytes body);
  // From now on the module's `request_body` or `response_body` gets this body. Call it in `before_request` for the request
  // body, in `response` for the response body. The server removes `content-length`.
  uint32_t (*filter_body)(snaphook_module_exchange *exchange, uint32_t of);
  // Writes output of a filter, at most 16 MiB in total each time the filter is called. Body filters write to their own side,
  // `SNAPHOOK_MODULE_REQUEST` or `…_RESPONSE`; filters of a connection to either: towards the server, or towards the peer. If
  // the server's memory for requests is used up, this fails, and so does the filter.
  uint32_t (*write)(snaphook_module_output *output, uint32_t to, struct snaphook_module_bytes bytes);
} snaphook_module_host;

// A setting of the module's own `config` table.
typedef struct snaphook_module_setting {
  // `path`, `limits.burst` for a member of a table, or `names.0` for an item of a list.
  struct snaphook_module_text key;
  // Text as it is; numbers, `true` and `false` as in JSON.
  struct snaphook_module_text value;
} snaphook_module_setting;

// The configuration of a module, passed at activation and at each reload. Valid until the function returns.
typedef struct snaphook_module_config {
  // `sizeof(snaphook_module_config)` of the server.
  uint32_t struct_size;
  // Version of the REST API.
  uint32_t api_version;
  // The server's name, such as `Snaphook`.
  struct snaphook_module_text server_name;
  struct snaphook_module_text server_version;
  // Such as `linux-x86_64`.
  struct snaphook_module_text platform;
  // The module's name in `[[server.modules]]`.
  struct snaphook_module_text module_name;
  // The module's `config` table as JSON.
  struct snaphook_module_text json;
  // The values of the same table, one by one.
  const struct snaphook_module_setting *settings;
  size_t settings_len;
} snaphook_module_config;

// A connection. Valid until the function returns.
typedef struct snaphook_module_connection_info {
  // `sizeof(snaphook_module_connection_info)` of the server.
  uint32_t struct_size;
  // 1 if the connection is encrypted.
  uint32_t is_secure;
  // Address and port of the peer, or `unix`.
  struct snaphook_module_text peer;
} snaphook_module_connection_info;

// The descriptor of a module. Everything that it points to must not change until the process ends: libraries are not unloaded.
//
// A null function, or one beyond a smaller `struct_size`, is a hook that the module does not have. `factory` and
// `recycler` are required. No function may throw an exception.
//
// Hooks may be called from any thread, and those of several exchanges concurrently. Hooks of one exchange never overlap;
// neither do those of one connection, but `request_open` and the hooks of its requests may run at the same time. Without the
// flag `BLOCKING`, a hook may take only microseconds.
typedef struct snaphook_module {
  // `SNAPHOOK_MODULE_ABI_VERSION`
  uint32_t abi_version;
  // `sizeof(snaphook_module)`
  uint32_t struct_size;
  // 1 to 200 bytes.
  struct snaphook_module_text name;
  // 1 to 200 bytes.
  struct snaphook_module_text version;
  // `SNAPHOOK_MODULE_BLOCKING` and so on. A server rejects a module with an unknown flag.
  uint32_t flags;
  // Always 0.
  uint32_t reserved;
  // Creates the module; null on failure.
  void *(*factory)(const struct snaphook_module_host *host);
  // Destroys the module, after its last request and connection have ended.
  void (*recycler)(void *module);
  // Returns `OK`, or `FAILED` if the module cannot be used; log the reason. The server then does not start, or continues without
  // the module if it is optional; after a reload, it keeps the previous modules.
  uint32_t (*activate)(void *module, const struct snaphook_module_config *config);
  // Called before `recycler` if the module was active.
  void (*deactivate)(void *module);
  // Called after `activate`, where `FAILED` has the same effect as in `activate`, and after each reload of the configuration, also
  // while requests run; then `FAILED` means that the module keeps its old configuration.
  uint32_t (*config_change)(void *module, const struct snaphook_module_config *config);
  // Creates the state of a connection; its hooks get the result, even if it is null. Without this function they get `module`.
  void *(*connection_open)(void *module, const struct snaphook_module_connection_info *info);
  // Destroys the state of a connection, after the states of its requests.
  void (*connection_close)(void *connection);
  // The connection begins. Connection hooks return `OK`, `DECLINED` or `FAILED`; `FAILED` ends the connection.
  uint32_t (*connection_start)(void *connection, snaphook_module_output *output);
  // The connection and its requests have ended. Not called if the connection ended before its `connection_start`.
  uint32_t (*connection_end)(void *connection);
  // Bytes from the socket. `OK`: the bytes written to `output` replace them. `DECLINED`: they pass unchanged, and the output is
  // dropped. `is_last` is 1 with the last bytes, which may be empty.
  uint32_t (*connection_read)(void *connection,
                              struct snaphook_module_bytes bytes,
                              uint32_t is_last,
                              snaphook_module_output *output);
  // Bytes for the socket; otherwise like `connection_read`.
  uint32_t (*connection_write)(void *connection,
                               struct snaphook_module_bytes bytes,
                               uint32_t is_last,
                               snaphook_module_output *output);
  // Creates the state of a request; null is a failure. `connection` is null without `connection_open`, and for connections
  // that are older than the module. Without this function the request hooks get the state of the connection, or `module` if
  // that is null.
  void *(*request_open)(void *module, void *connection, snaphook_module_exchange *exchange);
  // Destroys the state of a request, after the response has ended.
  void (*request_close)(void *request);
  // May change the request.
  uint32_t (*before_request)(void *request, snaphook_module_exchange *exchange);
  // May create the response.
  uint32_t (*request)(void *request, snaphook_module_exchange *exchange);
  // May change the response to an error, which the server has created.
  uint32_t (*request_error)(void *request, snaphook_module_exchange *exchange, uint32_t status);
  // May change the response, also one to an error.
  uint32_t (*response)(void *request, snaphook_module_exchange *exchange);
  // A chunk of a request body; like `connection_read`. Called only after `filter_body`, without an exchange, because the head
  // has already been passed on.
  uint32_t (*request_body)(void *request,
                           struct snaphook_module_bytes bytes,
                           uint32_t is_last,
                           snaphook_module_output *output);
  // The same for a response body.
  uint32_t (*response_body)(void *request,
                            struct snaphook_module_bytes bytes,
                            uint32_t is_last,
                            snaphook_module_output *output);
} snaphook_module;

// The type of `snaphook_module_v1`. It returns the descriptor; it must be quick and may be called more than once.
typedef const struct snaphook_module *(*snaphook_module_entry)(void);

#endif  /* SNAPHOOK_MODULE_H */

/* The function that a library exports. On Windows add __declspec(dllexport). */
#ifdef __cplusplus
extern "C"
#endif
const snaphook_module *snaphook_module_v1(void);

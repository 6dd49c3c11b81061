// Server modules for Snaphook in C++11: derive from snaphook::Module and snaphook::RequestHandler, then write
// SNAPHOOK_MODULE(MyModule, MyRequest, "name", "version") once per library.
//
// The server calls only the hooks that a class overrides. An exception in a hook does not reach the server: it is logged, the
// request ends with status 500, and the server counts the failure. Build with -shared -fPIC -fexceptions.

#ifndef SNAPHOOK_HPP
#define SNAPHOOK_HPP

#include <exception>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "snaphook_module.h"

namespace snaphook {

// The decision of a request hook.
class Result {
 public:
  static Result declined() { return Result(SNAPHOOK_MODULE_DECLINED); }
  static Result ok() { return Result(SNAPHOOK_MODULE_OK); }
  // The hook is called again once its Resume, from Exchange::resume, is called. Without one, the hook fails.
  static Result pending() { return Result(SNAPHOOK_MODULE_PENDING); }
  // An error with this HTTP status, 400 to 599. The server creates the response and calls request_error.
  static Result status(uint32_t status) {
    return Result(status < SNAPHOOK_MODULE_STATUS_MIN ? SNAPHOOK_MODULE_FAILED : status);
  }
  uint32_t code() const { return code_; }

 private:
  explicit Result(uint32_t code) : code_(code) {}
  uint32_t code_;
};

// The decision of a filter.
enum class Filtered : uint32_t {
  unchanged = SNAPHOOK_MODULE_DECLINED,
  replaced = SNAPHOOK_MODULE_OK,
  failed = SNAPHOOK_MODULE_FAILED,
};

enum class Side : uint32_t { request = SNAPHOOK_MODULE_REQUEST, response = SNAPHOOK_MODULE_RESPONSE };

namespace detail {
inline snaphook_module_bytes bytes(const std::string &text) {
  snaphook_module_bytes bytes = {reinterpret_cast<const uint8_t *>(text.data()), text.size()};
  return bytes;
}
inline std::string string(snaphook_module_bytes bytes) {
  return bytes.len == 0 ? std::string() : std::string(reinterpret_cast<const char *>(bytes.ptr), bytes.len);
}
inline std::string string(snaphook_module_text text) {
  return text.len == 0 ? std::string() : std::string(text.ptr, text.len);
}
}  // namespace detail

// The server, outside of hooks.
class Host {
 public:
  explicit Host(const snaphook_module_host *raw) : raw_(raw) {}
  // Levels are SNAPHOOK_MODULE_LOG_ERROR and so on. May be called from any thread.
  void log(uint32_t level, const std::string &message) const {
    snaphook_module_text text = {message.data(), message.size()};
    raw_->log(raw_->module, level, text);
  }
  const snaphook_module_host *raw() const { return raw_; }

 private:
  const snaphook_module_host *raw_;
};

// Resumes a hook that returned Result::pending(). Works once. May be called from any thread, also before the hook returns.
class Resume {
 public:
  Resume(Host host, uint64_t token) : host_(host), token_(token) {}
  void operator()() const { host_.raw()->resume(token_); }

 private:
  Host host_;
  uint64_t token_;
};

// One request and its response; valid until the hook returns, on its thread. Functions that change something return false if
// the value is invalid, the hook may not change it, or a limit is reached; snaphook_module.h has the rules.
class Exchange {
 public:
  Exchange(snaphook_module_exchange *raw, Host host) : raw_(raw), host_(host.raw()) {}

  std::string method() const { return text(SNAPHOOK_MODULE_METHOD); }
  // Path and query.
  std::string uri() const { return text(SNAPHOOK_MODULE_URI); }
  std::string protocol() const { return text(SNAPHOOK_MODULE_PROTOCOL); }
  std::string host() const { return text(SNAPHOOK_MODULE_HOST); }
  // Address and port, or `unix`.
  std::string peer() const { return text(SNAPHOOK_MODULE_PEER); }
  bool is_secure() const { return host_->is_secure(raw_) == 1; }
  bool set_method(const std::string &method) { return set_text(SNAPHOOK_MODULE_METHOD, method); }
  bool set_uri(const std::string &uri) { return set_text(SNAPHOOK_MODULE_URI, uri); }
  // The text after the status in HTTP/1.
  bool set_reason(const std::string &reason) { return set_text(SNAPHOOK_MODULE_REASON, reason); }

  bool has_header(Side of, const std::string &name) const {
    return host_->header(raw_, static_cast<uint32_t>(of), detail::bytes(name)).ptr != nullptr;
  }
  // The first value of the header; empty if there is none.
  std::string header(Side of, const std::string &name) const {
    return detail::string(host_->header(raw_, static_cast<uint32_t>(of), detail::bytes(name)));
  }
  std::vector<std::pair<std::string, std::string>> headers(Side of) const {
    std::vector<snaphook_module_header> raw(host_->headers(raw_, static_cast<uint32_t>(of), nullptr, 0));
    size_t count = host_->headers(raw_, static_cast<uint32_t>(of), raw.data(), raw.size());
    std::vector<std::pair<std::string, std::string>> headers;
    for (size_t i = 0; i < count && i < raw.size(); i++) {
      headers.emplace_back(detail::string(raw[i].name), detail::string(raw[i].value));
    }
    return headers;
  }
  bool set_header(Side of, const std::string &name, const std::string &value) {
    return is_ok(host_->set_header(raw_, static_cast<uint32_t>(of), detail::bytes(name), detail::bytes(value)));
  }
  bool add_header(Side of, const std::string &name, const std::string &value) {
    return is_ok(host_->add_header(raw_, static_cast<uint32_t>(of), detail::bytes(name), detail::bytes(value)));
  }
  bool remove_header(Side of, const std::string &name) {
    return is_ok(host_->remove_header(raw_, static_cast<uint32_t>(of), detail::bytes(name)));
  }

  // The status of the response; 0 if there is none yet.
  uint32_t status() const { return host_->status(raw_); }
  bool set_status(uint32_t status) { return is_ok(host_->set_status(raw_, status)); }
  // A body that is in memory, because a module has the flag for whole bodies or has set it; otherwise empty.
  std::string body(Side of) const { return detail::string(host_->body(raw_, static_cast<uint32_t>(of))); }
  bool set_body(Side of, const std::string &body) {
    return is_ok(host_->set_body(raw_, static_cast<uint32_t>(of), detail::bytes(body)));
  }
  // From now on request_body or response_body gets the pieces of this body.
  bool filter_body(Side of) { return is_ok(host_->filter_body(raw_, static_cast<uint32_t>(of))); }
  // For a hook that will return Result::pending().
  Resume resume() { return Resume(Host(host_), host_->token(raw_)); }

 private:
  static bool is_ok(uint32_t result) { return result == SNAPHOOK_MODULE_OK; }
  std::string text(uint32_t what) const { return detail::string(host_->text(raw_, what)); }
  bool set_text(uint32_t what, const std::string &value) {
    return is_ok(host_->set_text(raw_, what, detail::bytes(value)));
  }
  snaphook_module_exchange *raw_;
  const snaphook_module_host *host_;
};

// Where a filter writes, at most 16 MiB each time it is called. Body filters write to their own side, connection filters to
// either. If the server has no memory for the bytes, write returns false and the filter fails.
class Output {
 public:
  Output(snaphook_module_output *raw, Host host) : raw_(raw), host_(host.raw()) {}
  bool write(Side to, const std::string &bytes) {
    return host_->write(raw_, static_cast<uint32_t>(to), detail::bytes(bytes)) == SNAPHOOK_MODULE_OK;
  }

 private:
  snaphook_module_output *raw_;
  const snaphook_module_host *host_;
};

// The module's own table of the configuration, and the server's name, version and platform. Valid until the function returns.
class Config {
 public:
  explicit Config(const snaphook_module_config *raw) : raw_(raw) {}
  std::string json() const { return detail::string(raw_->json); }
  std::string module_name() const { return detail::string(raw_->module_name); }
  std::string server_name() const { return detail::string(raw_->server_name); }
  std::string server_version() const { return detail::string(raw_->server_version); }
  std::string platform() const { return detail::string(raw_->platform); }
  // The value of a key such as `path`, `limits.burst` or `names.0`; `otherwise` if there is none.
  std::string get(const std::string &key, const std::string &otherwise = "") const {
    for (size_t i = 0; i < raw_->settings_len; i++) {
      if (detail::string(raw_->settings[i].key) == key) return detail::string(raw_->settings[i].value);
    }
    return otherwise;
  }

 private:
  const snaphook_module_config *raw_;
};

// A module. Hooks of several requests run concurrently. If activate or the first config_change, which follows it, throws, the
// server does not start, or continues without the module if it is optional. If a later one throws, the module keeps its old
// configuration.
class Module {
 public:
  virtual ~Module() {}
  virtual void activate(const Config &) {}
  virtual void config_change(const Config &) {}
  virtual void deactivate() {}
  const Host &host() const { return host_; }
  void set_host(Host host) { host_ = host; }

 private:
  Host host_{nullptr};
};

// The state of one request, destroyed once its response has ended. Its hooks never overlap. A derived class needs a constructor
// with the parameters (MyModule &, Exchange &) or (MyModule &, MyConnection *, Exchange &); the pointer is null for connections
// that are older than the module, and without connection hooks.
class RequestHandler {
 public:
  virtual ~RequestHandler() {}
  // May change the request.
  virtual Result before_request(Exchange &) { return Result::declined(); }
  // May create the response.
  virtual Result request(Exchange &) { return Result::declined(); }
  // May change the response to an error, which the server has created.
  virtual Result request_error(Exchange &, uint32_t) { return Result::declined(); }
  // May change the response, also one to an error.
  virtual Result response(Exchange &) { return Result::declined(); }
  virtual Filtered request_body(const std::string &, bool, Output &) { return Filtered::unchanged; }
  virtual Filtered response_body(const std::string &, bool, Output &) { return Filtered::unchanged; }
};

// The state of one connection. A derived class needs a constructor with the parameters (MyModule &, const std::string &, bool):
// the module, the peer's address, and whether the connection is encrypted.
class ConnectionHandler {
 public:
  virtual ~ConnectionHandler() {}
  virtual Filtered start(Output &) { return Filtered::unchanged; }
  virtual void end() {}
  // Bytes from the socket; the bytes written to Side::request replace them.
  virtual Filtered read(const std::string &, bool, Output &) { return Filtered::unchanged; }
  // Bytes for the socket; the bytes written to Side::response replace them.
  virtual Filtered write(const std::string &, bool, Output &) { return Filtered::unchanged; }
};

// For modules without connection hooks.
struct NoConnection : ConnectionHandler {
  NoConnection(Module &, const std::string &, bool) {}
};

namespace detail {

template <class M, class R, class C>
struct Boundary {
  template <class T>
  struct Owned {
    M *module;
    T *state;
  };
  typedef Owned<R> Request;
  typedef Owned<C> Connection;

  // No exception reaches the server.
  template <class F>
  static uint32_t guarded(const Module &module, F call) {
    try {
      return call();
    } catch (const std::exception &error) {
      module.host().log(SNAPHOOK_MODULE_LOG_ERROR, std::string("exception: ") + error.what());
    } catch (...) {
      module.host().log(SNAPHOOK_MODULE_LOG_ERROR, "exception other than std::exception");
    }
    return SNAPHOOK_MODULE_FAILED;
  }

  static void *factory(const snaphook_module_host *host) {
    try {
      M *module = new M();
      module->set_host(Host(host));
      return module;
    } catch (...) {
      return nullptr;
    }
  }
  static void recycler(void *module) {
    try {
      delete static_cast<M *>(module);
    } catch (...) {
    }
  }
  static uint32_t activate(void *raw, const snaphook_module_config *config) {
    M &module = *static_cast<M *>(raw);
    return guarded(module, [&]() -> uint32_t { module.activate(Config(config)); return SNAPHOOK_MODULE_OK; });
  }
  static uint32_t config_change(void *raw, const snaphook_module_config *config) {
    M &module = *static_cast<M *>(raw);
    return guarded(module, [&]() -> uint32_t { module.config_change(Config(config)); return SNAPHOOK_MODULE_OK; });
  }
  static void deactivate(void *raw) {
    M &module = *static_cast<M *>(raw);
    guarded(module, [&]() -> uint32_t { module.deactivate(); return SNAPHOOK_MODULE_OK; });
  }

  // Passes the connection if the constructor of R has a parameter for it.
  static R *make(M &module, C *connection, Exchange &exchange, std::true_type) {
    return new R(module, connection, exchange);
  }
  static R *make(M &module, C *, Exchange &exchange, std::false_type) { return new R(module, exchange); }

  static void *request_open(void *raw, void *connection, snaphook_module_exchange *exchange) {
    M &module = *static_cast<M *>(raw);
    Request *request = nullptr;
    guarded(module, [&]() -> uint32_t {
      Exchange it(exchange, module.host());
      C *owner = connection == nullptr ? nullptr : static_cast<Connection *>(connection)->state;
      R *state = make(module, owner, it, std::is_constructible<R, M &, C *, Exchange &>());
      request = new (std::nothrow) Request{&module, state};
      if (request == nullptr) delete state;
      return SNAPHOOK_MODULE_OK;
    });
    return request;
  }
  static void request_close(void *raw) {
    Request *request = static_cast<Request *>(raw);
    guarded(*request->module, [&]() -> uint32_t { delete request->state; return SNAPHOOK_MODULE_OK; });
    delete request;
  }
  template <Result (RequestHandler::*hook)(Exchange &)>
  static uint32_t call(void *raw, snaphook_module_exchange *exchange) {
    Request &request = *static_cast<Request *>(raw);
    return guarded(*request.module, [&]() -> uint32_t {
      Exchange it(exchange, request.module->host());
      return (static_cast<RequestHandler *>(request.state)->*hook)(it).code();
    });
  }
  static uint32_t request_error(void *raw, snaphook_module_exchange *exchange, uint32_t status) {
    Request &request = *static_cast<Request *>(raw);
    return guarded(*request.module, [&]() -> uint32_t {
      Exchange it(exchange, request.module->host());
      return request.state->request_error(it, status).code();
    });
  }
  template <Filtered (RequestHandler::*filter)(const std::string &, bool, Output &)>
  static uint32_t body(void *raw, snaphook_module_bytes bytes, uint32_t is_last, snaphook_module_output *output) {
    Request &request = *static_cast<Request *>(raw);
    return guarded(*request.module, [&]() -> uint32_t {
      Output out(output, request.module->host());
      RequestHandler *state = request.state;
      return static_cast<uint32_t>((state->*filter)(string(bytes), is_last == 1, out));
    });
  }

  static void *connection_open(void *raw, const snaphook_module_connection_info *info) {
    M &module = *static_cast<M *>(raw);
    Connection *connection = nullptr;
    guarded(module, [&]() -> uint32_t {
      C *state = new C(module, string(info->peer), info->is_secure == 1);
      connection = new (std::nothrow) Connection{&module, state};
      if (connection == nullptr) delete state;
      return SNAPHOOK_MODULE_OK;
    });
    return connection;
  }
  static void connection_close(void *raw) {
    Connection *connection = static_cast<Connection *>(raw);
    if (connection == nullptr) return;
    guarded(*connection->module, [&]() -> uint32_t { delete connection->state; return SNAPHOOK_MODULE_OK; });
    delete connection;
  }
  static uint32_t connection_start(void *raw, snaphook_module_output *output) {
    if (raw == nullptr) return SNAPHOOK_MODULE_FAILED;
    Connection &connection = *static_cast<Connection *>(raw);
    return guarded(*connection.module, [&]() -> uint32_t {
      Output out(output, connection.module->host());
      return static_cast<uint32_t>(connection.state->start(out));
    });
  }
  static uint32_t connection_end(void *raw) {
    if (raw == nullptr) return SNAPHOOK_MODULE_FAILED;
    Connection &connection = *static_cast<Connection *>(raw);
    return guarded(*connection.module, [&]() -> uint32_t { connection.state->end(); return SNAPHOOK_MODULE_OK; });
  }
  template <Filtered (ConnectionHandler::*filter)(const std::string &, bool, Output &)>
  static uint32_t bytes(void *raw, snaphook_module_bytes bytes, uint32_t is_last, snaphook_module_output *output) {
    if (raw == nullptr) return SNAPHOOK_MODULE_FAILED;
    Connection &connection = *static_cast<Connection *>(raw);
    return guarded(*connection.module, [&]() -> uint32_t {
      Output out(output, connection.module->host());
      ConnectionHandler *state = connection.state;
      return static_cast<uint32_t>((state->*filter)(string(bytes), is_last == 1, out));
    });
  }
};

// Whether a class overrides a member function of its base.
#define SNAPHOOK_OVERRIDES(Class, Base, name) \
  (!std::is_same<decltype(&Class::name), decltype(&Base::name)>::value)

template <class M, class R, class C>
snaphook_module describe(const char *name, size_t name_len, const char *version, size_t version_len, uint32_t flags) {
  typedef Boundary<M, R, C> B;
  typedef RequestHandler H;
  typedef ConnectionHandler K;
  const bool filters = SNAPHOOK_OVERRIDES(C, K, start) || SNAPHOOK_OVERRIDES(C, K, end) ||
                       SNAPHOOK_OVERRIDES(C, K, read) || SNAPHOOK_OVERRIDES(C, K, write);
  snaphook_module it = snaphook_module();
  it.abi_version = SNAPHOOK_MODULE_ABI_VERSION;
  it.struct_size = sizeof(it);
  it.name.ptr = name;
  it.name.len = name_len;
  it.version.ptr = version;
  it.version.len = version_len;
  it.flags = flags;
  it.factory = B::factory;
  it.recycler = B::recycler;
  it.activate = B::activate;
  it.deactivate = B::deactivate;
  it.config_change = B::config_change;
  if (filters) {
    it.connection_open = B::connection_open;
    it.connection_close = B::connection_close;
  }
  if (SNAPHOOK_OVERRIDES(C, K, start)) it.connection_start = B::connection_start;
  if (SNAPHOOK_OVERRIDES(C, K, end)) it.connection_end = B::connection_end;
  if (SNAPHOOK_OVERRIDES(C, K, read)) it.connection_read = B::template bytes<&K::read>;
  if (SNAPHOOK_OVERRIDES(C, K, write)) it.connection_write = B::template bytes<&K::write>;
  it.request_open = B::request_open;
  it.request_close = B::request_close;
  if (SNAPHOOK_OVERRIDES(R, H, before_request)) it.before_request = B::template call<&H::before_request>;
  if (SNAPHOOK_OVERRIDES(R, H, request)) it.request = B::template call<&H::request>;
  if (SNAPHOOK_OVERRIDES(R, H, request_error)) it.request_error = B::request_error;
  if (SNAPHOOK_OVERRIDES(R, H, response)) it.response = B::template call<&H::response>;
  if (SNAPHOOK_OVERRIDES(R, H, request_body)) it.request_body = B::template body<&H::request_body>;
  if (SNAPHOOK_OVERRIDES(R, H, response_body)) it.response_body = B::template body<&H::response_body>;
  return it;
}

}  // namespace detail
}  // namespace snaphook

#if defined(_WIN32)
#define SNAPHOOK_EXPORT __declspec(dllexport)
#else
#define SNAPHOOK_EXPORT __attribute__((visibility("default")))
#endif

// Exports the module of this library: its classes, name, version and flags, SNAPHOOK_MODULE_BLOCKING and so on, or 0.
#define SNAPHOOK_MODULE_WITH(ModuleClass, RequestClass, ConnectionClass, name, version, flags)                 \
  extern "C" SNAPHOOK_EXPORT const snaphook_module *snaphook_module_v1(void) {                                  \
    static const snaphook_module it = snaphook::detail::describe<ModuleClass, RequestClass, ConnectionClass>(  \
        name, sizeof(name) - 1, version, sizeof(version) - 1, flags);                                          \
    return &it;                                                                                                \
  }
#define SNAPHOOK_MODULE(ModuleClass, RequestClass, name, version) \
  SNAPHOOK_MODULE_WITH(ModuleClass, RequestClass, snaphook::NoConnection, name, version, 0)

#endif  // SNAPHOOK_HPP

// A module that breaks the rules in the way that the header `x-do` of a request names. It uses the C ABI directly, without
// snaphook.hpp, which would catch its exceptions. Its setting `activate` chooses what `activate` does. With CONNECTIONS it has
// connection hooks, which log their calls; its setting `start` chooses what `connection_start` does.
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

#include "snaphook_module.h"

static const snaphook_module_host *host;
static std::atomic<int> open_requests;
static std::atomic<snaphook_module_exchange *> kept;
static std::atomic<bool> start_fails;

struct Request {
  int calls = 0;
};

static snaphook_module_bytes bytes(const std::string &text) {
  return {reinterpret_cast<const uint8_t *>(text.data()), text.size()};
}

static std::string header(snaphook_module_exchange *exchange, const char *name) {
  snaphook_module_bytes value = host->header(exchange, SNAPHOOK_MODULE_REQUEST, bytes(name));
  return value.len == 0 ? "" : std::string(reinterpret_cast<const char *>(value.ptr), value.len);
}

static void *factory(const snaphook_module_host *given) {
  host = given;
  static int module;
  return &module;
}

static void recycler(void *) {}

static std::string setting(const snaphook_module_config *config, const std::string &key) {
  for (size_t i = 0; i < config->settings_len; i++) {
    const snaphook_module_setting &it = config->settings[i];
    if (std::string(it.key.ptr, it.key.len) == key) return std::string(it.value.ptr, it.value.len);
  }
  return "";
}

static void log(const std::string &line) {
  host->log(host->module, SNAPHOOK_MODULE_LOG_INFO, {line.data(), line.size()});
}

static uint32_t activate(void *, const snaphook_module_config *config) {
  std::string wanted = setting(config, "activate");
  if (wanted == "throw") throw std::runtime_error("no");
  if (wanted == "fail") return SNAPHOOK_MODULE_FAILED;
  if (wanted == "lie") return 77;
  start_fails = setting(config, "start") == "fail";
  log("activated");
  return SNAPHOOK_MODULE_OK;
}

static uint32_t config_change(void *, const snaphook_module_config *config) {
  log("config: " + std::string(config->json.ptr, config->json.len));
  return SNAPHOOK_MODULE_OK;
}

static void deactivate(void *) { log("deactivated, open: " + std::to_string(open_requests)); }

static void *request_open(void *, void *, snaphook_module_exchange *exchange) {
  if (header(exchange, "x-do") == "open-null") return nullptr;
  if (header(exchange, "x-do") == "open-throw") throw 7;
  open_requests++;
  if (header(exchange, "x-do") == "open-block") {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    log("made after a while");
  }
  return new Request;
}

static void request_close(void *raw) {
  delete static_cast<Request *>(raw);
  open_requests--;
}

static uint32_t before_request(void *raw, snaphook_module_exchange *exchange) {
  Request &request = *static_cast<Request *>(raw);
  request.calls++;
  std::string wanted = header(exchange, "x-do");
  uint32_t request_side = SNAPHOOK_MODULE_REQUEST;
  if (wanted == "throw") throw std::runtime_error("thrown");
  if (wanted == "throw-int") throw 7;
  if (wanted == "fail") return SNAPHOOK_MODULE_FAILED;
  if (wanted == "status-200") return 200;
  if (wanted == "status-9000") return 9000;
  if (wanted == "block") std::this_thread::sleep_for(std::chrono::milliseconds(50));
  while (wanted == "hang") std::this_thread::sleep_for(std::chrono::seconds(1));
  if (wanted == "view") {
    host->set_header(exchange, request_side, bytes("a"), {nullptr, 5});
    return SNAPHOOK_MODULE_DECLINED;
  }
  if (wanted == "pending") return SNAPHOOK_MODULE_PENDING;
  if (wanted == "never") {
    host->token(exchange);
    return SNAPHOOK_MODULE_PENDING;
  }
  if (wanted == "late" && request.calls == 1) {
    uint64_t token = host->token(exchange);
    std::thread([token] {
      std::this_thread::sleep_for(std::chrono::milliseconds(1500));
      host->resume(token);
      host->resume(token + 1000000);
    }).detach();
    return SNAPHOOK_MODULE_PENDING;
  }
  if (wanted == "again") {
    host->resume(host->token(exchange));
    return SNAPHOOK_MODULE_PENDING;
  }
  if (wanted == "twice" && request.calls == 1) {
    uint64_t token = host->token(exchange);
    host->resume(token);
    host->resume(token);
    return SNAPHOOK_MODULE_PENDING;
  }
  if (wanted == "length") {
    bool is_refused = host->set_header(exchange, request_side, bytes("Content-Length"), bytes("3")) == SNAPHOOK_MODULE_FAILED &&
                      host->remove_header(exchange, request_side, bytes("transfer-encoding")) == SNAPHOOK_MODULE_FAILED;
    return is_refused ? 418 : SNAPHOOK_MODULE_FAILED;
  }
  if (wanted == "huge") {
    std::string huge(64 << 20, 'x');
    return host->set_body(exchange, request_side, bytes(huge)) == SNAPHOOK_MODULE_FAILED ? 413 : SNAPHOOK_MODULE_FAILED;
  }
  if (wanted == "response") {
    // This hook may only change the request.
    return host->set_status(exchange, 200) == SNAPHOOK_MODULE_FAILED ? 418 : SNAPHOOK_MODULE_FAILED;
  }
  if (wanted == "keep") kept = exchange;
  if (wanted == "stale") {
    snaphook_module_exchange *old = kept;
    uint32_t here = host->set_header(old, request_side, bytes("x"), bytes("1"));
    uint32_t there = SNAPHOOK_MODULE_OK;
    std::thread([&] { there = host->set_header(exchange, request_side, bytes("x"), bytes("1")); }).join();
    return here == SNAPHOOK_MODULE_FAILED && there == SNAPHOOK_MODULE_FAILED ? 418 : SNAPHOOK_MODULE_FAILED;
  }
  if (wanted == "leak") new char[1 << 20];
  return SNAPHOOK_MODULE_DECLINED;
}

static uint32_t response(void *, snaphook_module_exchange *exchange) {
  std::string wanted = header(exchange, "x-do");
  if (wanted == "response-throw") throw 7;
  if (wanted == "filter" || wanted == "filter-throw") host->filter_body(exchange, SNAPHOOK_MODULE_RESPONSE);
  host->set_header(exchange, SNAPHOOK_MODULE_RESPONSE, bytes("x-open"), bytes(std::to_string(open_requests)));
  return SNAPHOOK_MODULE_DECLINED;
}

static uint32_t response_body(void *, snaphook_module_bytes, uint32_t, snaphook_module_output *) { throw 7; }

#ifdef CONNECTIONS
static uint32_t connection_start(void *, snaphook_module_output *) {
  log("a connection begins");
  return start_fails ? SNAPHOOK_MODULE_FAILED : SNAPHOOK_MODULE_DECLINED;
}

static uint32_t connection_end(void *) {
  log("a connection ended");
  return SNAPHOOK_MODULE_OK;
}
#endif

extern "C" __attribute__((visibility("default"))) const snaphook_module *snaphook_module_v1(void) {
  static const snaphook_module it = [] {
    snaphook_module it = snaphook_module();
    it.abi_version = SNAPHOOK_MODULE_ABI_VERSION;
#ifdef VERSION
    it.abi_version = VERSION;
#endif
    it.struct_size = sizeof(it);
    it.name = {"hostile", 7};
    it.version = {"1", 1};
#ifdef FLAGS
    it.flags = FLAGS;
#endif
    it.factory = factory;
    it.recycler = recycler;
    it.activate = activate;
    it.config_change = config_change;
    it.deactivate = deactivate;
    it.request_open = request_open;
    it.request_close = request_close;
    it.before_request = before_request;
    it.response = response;
    it.response_body = response_body;
#ifdef CONNECTIONS
    it.connection_start = connection_start;
    it.connection_end = connection_end;
#endif
    return it;
  }();
  return &it;
}

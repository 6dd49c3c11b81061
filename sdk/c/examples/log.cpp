// A module that writes one line per request: method, path, status, milliseconds. Its setting `path` names the file.
//
// Build: c++ -std=c++11 -shared -fPIC -fexceptions -O2 -I sdk/c -o libsnaphook_module_log.so sdk/c/examples/log.cpp
#include <chrono>
#include <fstream>
#include <mutex>
#include <stdexcept>

#include "snaphook.hpp"

using namespace snaphook;

class Log : public Module {
 public:
  // Called after SIGHUP too, so that the file may be rotated.
  void config_change(const Config &config) override {
    std::lock_guard<std::mutex> lock(mutex_);
    std::string path = config.get("path", "access.log");
    std::ofstream file(path, std::ios::app);
    if (!file) throw std::runtime_error("cannot write to `" + path + "`");
    file_ = std::move(file);
  }
  void write(const std::string &line) {
    std::lock_guard<std::mutex> lock(mutex_);
    file_ << line << std::endl;
  }

 private:
  std::mutex mutex_;
  std::ofstream file_;
};

class LogRequest : public RequestHandler {
 public:
  LogRequest(Log &log, Exchange &) : log_(log), started_(std::chrono::steady_clock::now()) {}
  Result response(Exchange &exchange) override {
    auto took = std::chrono::steady_clock::now() - started_;
    auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
    log_.write(exchange.peer() + " " + exchange.method() + " " + exchange.uri() + " " +
               std::to_string(exchange.status()) + " " + std::to_string(millis) + " ms");
    return Result::declined();
  }

 private:
  Log &log_;
  std::chrono::steady_clock::time_point started_;
};

SNAPHOOK_MODULE(Log, LogRequest, "log", "1.0")

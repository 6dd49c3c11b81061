// An access log: one line per connection, on standard output or in the file `path`. Counts its handlers and, at the end, prints
// how many were not destroyed.
#include <Zia/API.hpp>

#include <atomic>
#include <chrono>
#include <fstream>
#include <iostream>
#include <mutex>

namespace {

using namespace Zia::API;

class Log : public Module {
public:
    ~Log() override { std::cout << "access log: destroyed" << std::endl; }

    const std::string& getName() const override { return name_; }
    void onActivate(const ServerConfig& config) override { open(config); }
    void onConfigChange(const ServerConfig& config) override { open(config); }
    void onDeactivate() override {
        std::cout << "access log: " << made << " handlers made, " << made - destroyed << " left" << std::endl;
    }
    RequestHandler::pointer newRequestHandler() override;

    void write(const std::string& line) {
        const std::lock_guard<std::mutex> lock(mutex_);
        std::ostream& out = file_.is_open() ? file_ : std::cout;
        out << line << std::endl;
    }

    std::atomic<std::size_t> made{0};
    std::atomic<std::size_t> destroyed{0};

private:
    void open(const ServerConfig& config) {
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto path = config.config.find("path");
        if (file_.is_open()) file_.close();
        if (path != config.config.end()) file_.open(path->second, std::ios::app);
    }

    std::string name_ = "access log";
    std::mutex mutex_;
    std::ofstream file_;
};

class Handler : public RequestHandler {
public:
    explicit Handler(Log& log) : log_(log) { ++log_.made; }
    ~Handler() override { ++log_.destroyed; }

    HookResultType onConnectionStart(const Connection&, tcp::socket&) override {
        start_ = std::chrono::steady_clock::now();
        return HookResult::Declined;
    }
    HookResultType onRequest(const Connection&, const Request& request, Response&) override {
        what_ = request.method + " " + request.uri + (request.secure ? " secure" : " plain");
        return HookResult::Declined;
    }
    HookResultType onResponse(const Connection&, Response& response) override {
        status_ = response.status_code;
        return HookResult::Declined;
    }
    HookResultType onConnectionEnd(const Connection& connection, tcp::socket&) override {
        const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start_;
        log_.write(connection.addr + ":" + std::to_string(connection.port) + " " + what_ + " " + std::to_string(status_) + " " +
                   std::to_string(static_cast<int>(time.count())) + " ms");
        return HookResult::Declined;
    }

private:
    Log& log_;
    std::chrono::steady_clock::time_point start_;
    std::string what_ = "no request";
    int status_ = 0;
};

RequestHandler::pointer Log::newRequestHandler() { return std::make_shared<Handler>(*this); }

}

ZIA_API_EXPORT Module::pointer factory() { return new Log; }
ZIA_API_EXPORT void recycler(Module::pointer module) { delete module; }

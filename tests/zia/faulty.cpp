// Everything that a module can do wrong. The last segment of the path chooses the fault in `onRequest`, the configuration those in
// `onActivate` (`activate`) and `newRequestHandler` (`handler`).
#include <Zia/API.hpp>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <stdexcept>
#include <thread>

#ifdef MISSING
// Defined nowhere: the library cannot be loaded.
extern void defined_nowhere();
#endif

namespace {

using namespace Zia::API;

struct Oddity {};

// Recurses until the stack overflows.
int dive(volatile char* from) {
    volatile char here[4096] = {*from};
    return *from == 'x' ? 0 : dive(here) + here[1];
}

void fail(const std::string& how) {
    if (how == "throw-exception") throw std::runtime_error("on purpose\nin two lines");
    if (how == "throw-class") throw Oddity();
    if (how == "throw-int") throw 7;
    if (how == "hang") for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    if (how == "crash") std::raise(SIGSEGV);
    if (how == "abort") std::abort();
    if (how == "exit") std::exit(0);
    if (how == "overflow") {
        volatile char here = 0;
        std::cout << dive(&here) << std::endl;
    }
    if (how == "print") {
        for (int line = 0; line < 20000; ++line) std::cout << "line " << line << '\n';
        std::cout << std::string(100000, 'y') << std::endl;
        std::cerr << "the end of much" << std::endl;
    }
}

class Faulty : public Module {
public:
    const std::string& getName() const override { return name_; }
    void onActivate(const ServerConfig& config) override {
        const auto how = config.config.find("activate");
        if (how != config.config.end()) fail(how->second);
        const auto handler = config.config.find("handler");
        if (handler != config.config.end()) handler_ = handler->second;
#ifdef MISSING
        defined_nowhere();
#endif
    }
    RequestHandler::pointer newRequestHandler() override;

private:
    std::string name_ = "faulty";
    std::string handler_;
};

class Handler : public RequestHandler {
public:
    HookResultType onConnectionStart(const Connection&, tcp::socket& socket) override {
        // Like modules that use the descriptor directly.
        socket.native_non_blocking(true);
        return HookResult::Declined;
    }
    HookResultType onRequest(const Connection&, const Request& request, Response&) override {
        fail(request.uri.substr(request.uri.rfind('/') + 1));
        return HookResult::Declined;
    }
    HookResultType onResponse(const Connection&, Response& response) override {
        if (response.headers.count("X-Fault") != 0) throw Oddity();
        return HookResult::Declined;
    }
};

RequestHandler::pointer Faulty::newRequestHandler() {
    if (handler_ == "null") return nullptr;
    fail(handler_);
    return std::make_shared<Handler>();
}

}

#ifdef MANGLED
Module::pointer factory() { return new Faulty; }
#else
ZIA_API_EXPORT Module::pointer factory() { return new Faulty; }
#endif
ZIA_API_EXPORT void recycler(Module::pointer module) { delete module; }

// Changes requests and responses, and shows its input: `/echo` returns the request as the module sees it, `/config` its
// configuration. Provides its own error pages.
#include <Zia/API.hpp>

#include <cstring>
#include <map>
#include <mutex>

namespace {

using namespace Zia::API;

void put(Response& response, const std::string& text) {
    response.body.assign(text.begin(), text.end());
    response.headers["Content-Type"] = "text/plain";
}

class Editor : public Module {
public:
    const std::string& getName() const override { return name_; }
    void onActivate(const ServerConfig& config) override { take("activated", config); }
    void onConfigChange(const ServerConfig& config) override { take("changed", config); }
    RequestHandler::pointer newRequestHandler() override;

    std::string config() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return config_;
    }

private:
    void take(const std::string& what, const ServerConfig& config) {
        const std::lock_guard<std::mutex> lock(mutex_);
        config_ += what + " " + config.name + " " + (config.platform == ServerConfig::Platform::Linux ? "linux " : "other ") +
                   (config.version.empty() ? "no version " : "a version ") + config.apispec_version + "\n";
        for (const auto& pair : std::map<std::string, std::string>(config.config.begin(), config.config.end())) {
            config_ += pair.first + "=" + pair.second + "\n";
        }
    }

    std::string name_ = "editor";
    std::mutex mutex_;
    std::string config_;
};

class Handler : public RequestHandler {
public:
    explicit Handler(Editor& editor) : editor_(editor) {}

    HookResultType onBeforeRequest(const Connection& connection, Request& request) override {
        request.headers["X-Peer"] = connection.addr;
        if (request.uri == "/renamed") request.uri = "/healthz";
        if (request.uri == "/teapot") return 418;
        if (request.uri == "/odd") return 7;
        const auto name = request.headers.find("X-Rename");
        if (name != request.headers.end()) request.uri = name->second;
        const auto text = request.headers.find("X-Value");
        if (text != request.headers.end()) request.headers["X-Split"] = "a\nb";
        return HookResult::Declined;
    }
    HookResultType onRequest(const Connection&, const Request& request, Response& response) override {
        if (request.uri == "/config") {
            put(response, editor_.config());
            return HookResult::Ok;
        }
        if (request.uri == "/big") {
            response.body.assign(3 * 1000 * 1000, 'x');
            return HookResult::Ok;
        }
        if (request.uri == "/status") {
            response.status_code = 77;
            return HookResult::Ok;
        }
        if (request.uri.rfind("/echo", 0) != 0) return HookResult::Declined;
        std::string text = request.method + " " + request.uri + " " + request.protocol + (request.secure ? " secure\n" : " plain\n");
        for (const auto& pair : std::map<std::string, std::string>(request.headers.begin(), request.headers.end())) {
            text += pair.first + ": " + pair.second + "\n";
        }
        // As a C string.
        const auto size = request.body.empty() ? 0 : std::strlen(request.body.data());
        text += std::to_string(request.body.size()) + " bytes, " + std::to_string(size) + " to the zero\n";
        put(response, text);
        return HookResult::Ok;
    }
    HookResultType onRequestError(const Connection&, int status, Response& response) override {
        put(response, "page " + std::to_string(status) + " of " + std::to_string(response.status_code) + "\n");
        return HookResult::Ok;
    }
    HookResultType onResponse(const Connection&, Response& response) override {
        response.headers["X-Edited"] = std::to_string(response.body.size());
        return HookResult::Declined;
    }

private:
    Editor& editor_;
};

RequestHandler::pointer Editor::newRequestHandler() { return std::make_shared<Handler>(*this); }

}

ZIA_API_EXPORT Module::pointer factory() { return new Editor; }
ZIA_API_EXPORT void recycler(Module::pointer module) { delete module; }

// Static files below `root`, as a careless module serves them: it appends the path unchecked, decoded once. It declines a path that
// is not a file, but leaves its changes in the response.
#include <Zia/API.hpp>

#include <fstream>
#include <iterator>

namespace {

using namespace Zia::API;

std::string decoded(const std::string& text) {
    std::string out;
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (text[at] == '%' && at + 2 < text.size()) {
            out += static_cast<char>(std::stoi(text.substr(at + 1, 2), nullptr, 16));
            at += 2;
        } else {
            out += text[at];
        }
    }
    return out;
}

class Files : public Module {
public:
    const std::string& getName() const override { return name_; }
    void onActivate(const ServerConfig& config) override { root_ = config.config.at("files.root"); }
    RequestHandler::pointer newRequestHandler() override;

    const std::string& root() const { return root_; }

private:
    std::string name_ = "files";
    std::string root_;
};

class Handler : public RequestHandler {
public:
    explicit Handler(Files& files) : files_(files) {}

    HookResultType onRequest(const Connection&, const Request& request, Response& response) override {
        response.status_code = 418;
        response.headers["X-Files"] = "asked";
        const auto path = files_.root() + decoded(request.uri.substr(0, request.uri.find('?')));
        std::ifstream file(path, std::ios::binary);
        if (request.method != "GET" || !file || file.peek() == std::ifstream::traits_type::eof()) return HookResult::Declined;
        response.body.assign(std::istreambuf_iterator<char>(file), {});
        response.status_code = 200;
        response.status_message = "Found it";
        response.headers["content-type"] = "text/plain\r\n";
        return HookResult::Ok;
    }

private:
    Files& files_;
};

RequestHandler::pointer Files::newRequestHandler() { return std::make_shared<Handler>(*this); }

}

ZIA_API_EXPORT Module::pointer factory() { return new Files; }
ZIA_API_EXPORT void recycler(Module::pointer module) { delete module; }

// The module interface of the public specification ZiaModuleAPISpec, version 1.1.1, written independently.
//
// Modules are built with the specification's headers, and so may the bridge be (`cargo xtask modules --zia-headers DIR`).
// Otherwise the bridge is built with this file. Invariant: the names, the order of members and the order of virtual functions
// match the specification, because the bridge and modules share these objects in memory.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <boost/asio.hpp>

using boost::asio::ip::tcp;

namespace Zia {
namespace API {

namespace Definitions {
static const std::string VERSION = "1.1.1";
}

// The result of a hook. Any other number is an error: from 400 to 599, the HTTP status of the response.
using HookResultType = unsigned short;
namespace HookResult {
// Handled: no later module is called for this hook.
static constexpr HookResultType Ok = 1;
// Not handled: the next module is called.
static constexpr HookResultType Declined = 0;
}

// The peer of a connection.
struct Connection {
    std::string addr;
    unsigned short port;
};

struct Request {
    std::string method;
    // Path and query.
    std::string uri;
    std::string protocol;
    // If a header occurs several times, the last value.
    std::unordered_map<std::string, std::string> headers;
    std::vector<char> body;
    // Whether the connection uses TLS.
    bool secure;
};

struct Response {
    std::string protocol;
    unsigned short status_code;
    std::string status_message;
    std::unordered_map<std::string, std::string> headers;
    std::vector<char> body;
};

struct ServerConfig {
    enum class Platform { Linux, Windows, Macos };

    std::string name;
    std::string version;
    Platform platform;
    // The module's own configuration, flat: `a.b` is the key `b` of the table `a`.
    std::unordered_map<std::string, std::string> config;
    std::string apispec_version = Definitions::VERSION;
};

// The hooks of a module for one connection with its single request. A hook that is not overridden declines.
class RequestHandler {
public:
    using pointer = std::shared_ptr<RequestHandler>;

    virtual ~RequestHandler() {}

    virtual HookResultType onConnectionStart(const Connection&, tcp::socket&) { return HookResult::Declined; }
    virtual HookResultType onConnectionEnd(const Connection&, tcp::socket&) { return HookResult::Declined; }
    // Reads into the buffer, at most its size, and sets the number of bytes read; 0: the end.
    virtual HookResultType onConnectionRead(const Connection&, tcp::socket&, std::vector<char>&, size_t&) {
        return HookResult::Declined;
    }
    // Sends the buffer and sets the number of bytes written.
    virtual HookResultType onConnectionWrite(const Connection&, tcp::socket&, const std::vector<char>&, size_t&) {
        return HookResult::Declined;
    }

    virtual HookResultType onBeforeRequest(const Connection&, Request&) { return HookResult::Declined; }
    virtual HookResultType onRequest(const Connection&, const Request&, Response&) { return HookResult::Declined; }
    virtual HookResultType onRequestError(const Connection&, int /* status */, Response&) {
        return HookResult::Declined;
    }
    virtual HookResultType onResponse(const Connection&, Response&) { return HookResult::Declined; }
};

// A module library exports `factory`, which creates a module, and `recycler`, which destroys it.
class Module {
public:
    using pointer = Module*;
    using factory = Module::pointer (*)();
    using recycler = void (*)(Module::pointer);

    virtual ~Module() {}

    virtual const std::string& getName() const = 0;
    virtual void onActivate(const ServerConfig&) {}
    virtual void onDeactivate() {}
    virtual void onConfigChange(const ServerConfig&) {}
    virtual RequestHandler::pointer newRequestHandler() = 0;
};

}
}

// To be written before `factory` and `recycler`.
#define ZIA_API_EXPORT extern "C"

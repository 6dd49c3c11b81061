// One connection with its single request, on its own thread.
#pragma once

#include <atomic>

#include "control.hpp"
#include "handlers.hpp"
#include "http.hpp"
#include "memory.hpp"
#include "module.hpp"
#include "wire.hpp"

namespace bridge {

// The state that all connections share.
struct Service {
    Modules modules;
    MemoryBudget memory;
    std::atomic<std::size_t> body_bytes_max{0};
};

class Connection final : private Interruptible {
public:
    // `api` connects to the server's API, for this connection only.
    Connection(Service& service, Descriptor client, Descriptor api, Zia::API::Connection info, bool is_secure);

    // Serves the connection, from the first hook until the handlers are destroyed.
    void run();

private:
    // A response that has not been written yet.
    struct Answer {
        Zia::API::Response response{};
        HeaderLines lines{};
        bool is_stream = false;
        bool is_chunked = false;
        std::string start{};
    };

    void serve();
    Answer answer(ParsedRequest& parsed);
    Answer ask_modules(ParsedRequest& parsed);
    Answer ask_server(const ParsedRequest& parsed, const HeaderMap& before);
    Answer error_page(int status);
    void send(Answer answer, const std::string& method);
    void send_stream(Answer answer);
    // Receives bytes from the server; empty at the end. Throws `ConnectionOver` if the client disconnects first.
    std::string receive();

    void interrupt(bool fails) override;
    void abandon() override;
    std::string farewell() const;

    Service& service_;
    Descriptor api_;
    bool is_secure_;
    Handlers handlers_;
    Wire wire_;
    Lease memory_;
    bool has_rest_ = false;
};

}

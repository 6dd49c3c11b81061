// One connection with its one request, on a thread of its own.
#pragma once

#include <atomic>

#include "control.hpp"
#include "handlers.hpp"
#include "http.hpp"
#include "memory.hpp"
#include "module.hpp"
#include "wire.hpp"

namespace bridge {

// What all connections share.
struct Service {
    Modules modules;
    MemoryBudget memory;
    std::atomic<std::size_t> body_bytes_max{0};
};

class Connection final : private Interruptible {
public:
    // `api` is the way to the server, for this connection alone.
    Connection(Service& service, Descriptor client, Descriptor api, Zia::API::Connection info, bool is_secure);

    // From the first hook to the end of the handlers.
    void run();

private:
    // What becomes of a request, until it is written.
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
    // Bytes of the server; none at the end. The client may leave meanwhile.
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

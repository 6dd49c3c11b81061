// A client's connection: the socket that modules get, and its bytes through their connection hooks.
#pragma once

#include <Zia/API.hpp>
#include <atomic>
#include <string>
#include <vector>

#include "control.hpp"
#include "handlers.hpp"

namespace bridge {

class Wire {
public:
    // The address is the peer's.
    Wire(Descriptor client, Zia::API::Connection info, Handlers& handlers, Interruptible& connection);
    Wire(const Wire&) = delete;

    void start();
    // Some bytes of the request; none at its end.
    std::string read();
    void write(std::vector<char> bytes);
    void end();

    // Lets the client take what was sent, although not all that it sends is read: a connection that is closed on unread
    // bytes is reset.
    void linger();

    // From any thread: sent as it is, if nothing was sent yet and no module changes the bytes.
    void send_plainly(const std::string& bytes);

    // From any thread: whatever waits for the client ends.
    void interrupt();

    const Zia::API::Connection& info() const { return info_; }
    // For poll(): whether the client is gone.
    int watched() const { return watched_.number(); }

private:
    Clock::duration read_time() const;

    Zia::API::Connection info_;
    Handlers& handlers_;
    Interruptible& connection_;
    // Another way to the same connection: modules may close the socket.
    Descriptor watched_;
    tcp::socket socket_;
    Clock::time_point started_ = Clock::now();
    std::size_t received_ = 0;
    // Whether the bytes are as no module made them.
    std::atomic<bool> is_plain_{true};
    std::atomic<bool> has_sent_{false};
};

}

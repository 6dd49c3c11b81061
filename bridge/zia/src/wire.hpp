// A client's connection: the socket for modules, and reading and writing through their connection hooks.
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
    // `info`: address and port of the peer.
    Wire(Descriptor client, Zia::API::Connection info, Handlers& handlers, Interruptible& connection);
    Wire(const Wire&) = delete;

    void start();
    // Reads some bytes of the request; empty at the end.
    std::string read();
    void write(std::vector<char> bytes);
    void end();

    // Reads and drops what the client still sends, so that it receives the response: closing a socket with unread bytes resets
    // the connection.
    void linger();

    // Sends bytes without hooks, unless something was already sent or a module handles the bytes. From any thread.
    void send_plainly(const std::string& bytes);

    // Interrupts all waits for the client. From any thread.
    void interrupt();

    const Zia::API::Connection& info() const { return info_; }
    // A descriptor for poll(), which shows whether the client has disconnected.
    int watched() const { return watched_.number(); }

private:
    Clock::duration read_time() const;

    Zia::API::Connection info_;
    Handlers& handlers_;
    Interruptible& connection_;
    // A duplicate of the socket, because modules may close theirs.
    Descriptor watched_;
    tcp::socket socket_;
    Clock::time_point started_ = Clock::now();
    std::size_t received_ = 0;
    // Whether no module has handled the bytes of this connection.
    std::atomic<bool> is_plain_{true};
    std::atomic<bool> has_sent_{false};
};

}

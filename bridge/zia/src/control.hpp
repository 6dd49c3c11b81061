// The socket to the server: a Unix socket of whole messages, with descriptors beside them.
#pragma once

#include <string>

#include "message.hpp"

namespace bridge {

// A descriptor, closed with its owner.
class Descriptor {
public:
    Descriptor() = default;
    explicit Descriptor(int number) : number_(number) {}
    Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}
    Descriptor& operator=(Descriptor&& other) noexcept;
    ~Descriptor();

    int number() const { return number_; }
    int release();

private:
    int number_ = -1;
};

// What came in one message.
struct Received {
    std::string bytes;
    // Of the client's connection and of the server's API, with `Order::Connection`.
    Descriptor client;
    Descriptor api;
};

namespace control {

// Takes over standard input, which is the socket, so that no program that a module starts inherits it.
void open();

// The next message; empty bytes at the end.
Received receive();

// From any thread. A server that is gone ends the process elsewhere.
void send(const MessageWriter& message);

// The same from a signal handler: allocates nothing.
void send_from_signal(const char* bytes, std::size_t size);

}
}

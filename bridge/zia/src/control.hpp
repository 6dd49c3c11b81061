// The socket to the server: a Unix socket that carries whole messages and descriptors.
#pragma once

#include <string>

#include "message.hpp"

namespace bridge {

// A file descriptor, closed by the destructor.
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

// A received message.
struct Received {
    std::string bytes;
    // With `Order::Connection`: the client's connection, and one to the server's API.
    Descriptor client;
    Descriptor api;
};

namespace control {

// Takes the socket from standard input, so that programs that a module starts do not inherit it.
void open();

// Receives the next message; its bytes are empty at the end.
Received receive();

// Sends a message, from any thread. Errors are ignored: if the server is gone, `receive` returns the end.
void send(const MessageWriter& message);

// The same from a signal handler. Does not allocate.
void send_from_signal(const char* bytes, std::size_t size);

}
}

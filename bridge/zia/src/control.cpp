// The socket to the server.
#include "control.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace bridge {

namespace {

// Set once, before threads are started.
int control_socket = -1;

// The client's connection and the one to the API.
constexpr int descriptors_max = 2;

}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
    if (this != &other) {
        if (number_ >= 0) ::close(number_);
        number_ = other.release();
    }
    return *this;
}

Descriptor::~Descriptor() {
    if (number_ >= 0) ::close(number_);
}

int Descriptor::release() {
    const int number = number_;
    number_ = -1;
    return number;
}

namespace control {

void open() {
    control_socket = ::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (control_socket < 0 || nothing < 0 || ::dup2(nothing, STDIN_FILENO) < 0) std::exit(EXIT_FAILURE);
    ::close(nothing);
}

Received receive() {
    Received received;
    received.bytes.resize(message_bytes_max);
    alignas(cmsghdr) char ancillary[CMSG_SPACE(descriptors_max * sizeof(int))];
    iovec part = {&received.bytes[0], received.bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = ancillary;
    message.msg_controllen = sizeof ancillary;
    ssize_t size;
    do {
        size = ::recvmsg(control_socket, &message, MSG_CMSG_CLOEXEC);
    } while (size < 0 && errno == EINTR);
    received.bytes.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    for (cmsghdr* head = CMSG_FIRSTHDR(&message); head != nullptr; head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
        int numbers[descriptors_max] = {-1, -1};
        std::memcpy(numbers, CMSG_DATA(head), head->cmsg_len - CMSG_LEN(0));
        received.client = Descriptor(numbers[0]);
        received.api = Descriptor(numbers[1]);
    }
    return received;
}

void send(const MessageWriter& message) {
    send_from_signal(message.bytes().data(), message.bytes().size());
}

void send_from_signal(const char* bytes, std::size_t size) {
    while (::send(control_socket, bytes, size, MSG_NOSIGNAL) < 0 && errno == EINTR) {
    }
}

}
}

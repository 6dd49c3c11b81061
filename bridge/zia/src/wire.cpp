// A client's connection. Every wait for the client has a deadline.
#include "wire.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace bridge {

namespace {

using Zia::API::HookResult::Declined;
using Zia::API::HookResult::Ok;
using std::chrono::seconds;

// For the start of a connection, including a TLS handshake.
constexpr auto start_time = seconds(10);

// For a request: this time, and more for every byte received.
constexpr auto read_time_min = seconds(60);
constexpr std::size_t read_bytes_per_second = 4 * 1024;

// For a response: this time, and more for every byte to send.
constexpr auto write_time_min = seconds(20);
constexpr std::size_t write_bytes_per_second = 16 * 1024;

constexpr auto end_time = seconds(10);

// How many bytes a module may read at once.
constexpr std::size_t buffer_bytes = 4096;

// How long, and how many bytes, to read after the response.
constexpr auto linger_time = seconds(5);
constexpr std::size_t linger_bytes_max = 64 * 1024 * 1024;

// Never run: asio's blocking calls do not need it.
boost::asio::io_context& io_context() {
    static auto* context = new boost::asio::io_context;
    return *context;
}

bool is_v6(int descriptor) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    return ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0 && address.ss_family == AF_INET6;
}

void make_blocking(int descriptor) {
    int off = 0;
    ::ioctl(descriptor, FIONBIO, &off);
}

}

Wire::Wire(Descriptor client, Zia::API::Connection info, Handlers& handlers, Interruptible& connection)
    : info_(std::move(info)), handlers_(handlers), connection_(connection),
      watched_(::fcntl(client.number(), F_DUPFD_CLOEXEC, 3)), socket_(io_context()) {
    // Without the duplicate, waits for the client could not be interrupted.
    if (watched_.number() < 0) throw std::system_error(errno, std::generic_category());
    make_blocking(client.number());
    socket_.assign(is_v6(client.number()) ? tcp::v6() : tcp::v4(), client.number());
    client.release();
}

void Wire::start() {
    const auto result = handlers_.ask_connection("onConnectionStart", start_time, [&](Zia::API::RequestHandler& handler) {
        return handler.onConnectionStart(info_, socket_);
    });
    if (result != Declined && result != Ok) throw ConnectionOver{};
}

Clock::duration Wire::read_time() const {
    const auto allowed = read_time_min + seconds(received_ / read_bytes_per_second);
    return std::max<Clock::duration>(started_ + allowed - Clock::now(), Clock::duration::zero());
}

std::string Wire::read() {
    std::vector<char> buffer(buffer_bytes);
    std::size_t size = 0;
    const auto time = read_time();
    const auto result = handlers_.ask_connection("onConnectionRead", time, [&](Zia::API::RequestHandler& handler) {
        return handler.onConnectionRead(info_, socket_, buffer, size);
    });
    if (result == Declined) {
        const Call call(&connection_, no_module, "reading", Call::Waits::ForPeer, time);
        boost::system::error_code error;
        do {
            size = socket_.read_some(boost::asio::buffer(buffer), error);
        } while (error == boost::asio::error::interrupted);
        if (call.is_late()) throw ConnectionOver{};
    } else {
        is_plain_ = false;
        if (result != Ok) throw ConnectionOver{};
    }
    size = std::min(size, buffer.size());
    received_ += size;
    return std::string(buffer.data(), size);
}

void Wire::write(std::vector<char> bytes) {
    has_sent_ = true;
    while (!bytes.empty()) {
        const Clock::duration time = write_time_min + seconds(bytes.size() / write_bytes_per_second);
        // Preset, because some modules never set the number of bytes written.
        std::size_t written = bytes.size();
        const auto result = handlers_.ask_connection("onConnectionWrite", time, [&](Zia::API::RequestHandler& handler) {
            return handler.onConnectionWrite(info_, socket_, bytes, written);
        });
        if (result == Declined) {
            const Call call(&connection_, no_module, "writing", Call::Waits::ForPeer, time);
            boost::system::error_code error;
            written = boost::asio::write(socket_, boost::asio::buffer(bytes), error);
            if (error || call.is_late()) throw ConnectionOver{};
        } else if (result != Ok || written == 0) {
            throw ConnectionOver{};
        }
        bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(std::min(written, bytes.size())));
    }
}

void Wire::end() {
    handlers_.ask_connection("onConnectionEnd", end_time, [&](Zia::API::RequestHandler& handler) {
        return handler.onConnectionEnd(info_, socket_);
    });
}

void Wire::linger() {
    ::shutdown(watched_.number(), SHUT_WR);
    const auto until = Clock::now() + linger_time;
    char buffer[16 * 1024];
    for (std::size_t total = 0; total < linger_bytes_max;) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
        pollfd waits = {watched_.number(), POLLIN, 0};
        if (left <= 0 || ::poll(&waits, 1, static_cast<int>(left)) <= 0) return;
        const auto size = ::recv(watched_.number(), buffer, sizeof buffer, MSG_DONTWAIT);
        if (size <= 0) return;
        total += static_cast<std::size_t>(size);
    }
}

void Wire::send_plainly(const std::string& bytes) {
    if (!is_plain_ || has_sent_.exchange(true) || bytes.empty()) return;
    ::send(watched_.number(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void Wire::interrupt() { ::shutdown(watched_.number(), SHUT_RDWR); }

}

// The messages between the server and the bridge: a kind, then fields of bytes, each preceded by its length.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bridge {

// Messages of the server: one `Module` for each, then `Limits`, then `Activate`, then the others and `Limits` in any order.
enum class Order : char {
    // number, name, library, optional, milliseconds of a request hook, then pairs of the configuration
    Module = 'M',
    // maximum bytes of a body, maximum bytes of all bodies together
    Limits = 'B',
    // version
    Activate = 'A',
    // address, port, secure; with the descriptors of the connection and of the server's API
    Connection = 'C',
    // number, then pairs of the configuration
    ConfigChange = 'N',
    // number
    Deactivate = 'D',
    // milliseconds for open connections; the end of the socket is a stop with 0 milliseconds
    Stop = 'S',
};

// Messages of the bridge.
enum class Report : char {
    // no field: connections are accepted
    Ready = 'R',
    // number, reason: a module cannot be used
    Refused = 'L',
    // number, reason: a module failed a request
    Failed = 'F',
    // number (empty if no module ran), function: the process ends
    Crashed = 'X',
};

// Maximum size of a message.
constexpr std::size_t message_bytes_max = 64 * 1024;

// Builds a message.
class MessageWriter {
public:
    explicit MessageWriter(Report kind) : bytes_(1, static_cast<char>(kind)) {}

    MessageWriter& field(std::string_view text) {
        const auto size = static_cast<std::uint32_t>(text.size());
        for (int shift = 0; shift < 32; shift += 8) bytes_.push_back(static_cast<char>(size >> shift));
        bytes_.append(text);
        return *this;
    }
    MessageWriter& field(std::size_t number) { return field(std::to_string(number)); }

    const std::string& bytes() const { return bytes_; }

private:
    std::string bytes_;
};

// Reads a message. A missing field is empty; messages are trusted, because only the server writes them.
class MessageReader {
public:
    explicit MessageReader(std::string_view bytes) : rest_(bytes.empty() ? bytes : bytes.substr(1)) {
        kind_ = bytes.empty() ? Order::Stop : static_cast<Order>(bytes.front());
    }

    Order kind() const { return kind_; }

    std::string text() {
        if (rest_.size() < 4) return {};
        std::uint32_t size = 0;
        for (int index = 3; index >= 0; --index) size = size << 8 | static_cast<unsigned char>(rest_[index]);
        rest_.remove_prefix(4);
        const auto field = rest_.substr(0, size);
        rest_.remove_prefix(field.size());
        return std::string(field);
    }
    std::size_t number() {
        std::size_t number = 0;
        for (const char digit : text()) number = number * 10 + static_cast<std::size_t>(digit - '0');
        return number;
    }
    bool flag() { return number() != 0; }
    std::vector<std::pair<std::string, std::string>> pairs() {
        std::vector<std::pair<std::string, std::string>> pairs;
        while (!rest_.empty()) {
            auto key = text();
            pairs.emplace_back(std::move(key), text());
        }
        return pairs;
    }

private:
    Order kind_;
    std::string_view rest_;
};

}

// A module with connection hooks: it applies ROT13 to all bytes on the wire, in both directions. It shows how to filter bytes
// below TLS, and how a request accesses its connection.
//
// Build: c++ -std=c++11 -shared -fPIC -fexceptions -O2 -I sdk/c -o librot13.so sdk/c/examples/rot13.cpp
#include <atomic>

#include "snaphook.hpp"

using namespace snaphook;

class Rot13 : public Module {};

class Rot13Connection : public ConnectionHandler {
 public:
  Rot13Connection(Rot13 &, const std::string &, bool) {}
  Filtered read(const std::string &bytes, bool, Output &output) override {
    received_ += bytes.size();
    return turn(bytes, Side::request, output);
  }
  Filtered write(const std::string &bytes, bool, Output &output) override {
    return turn(bytes, Side::response, output);
  }
  // Called by requests, at the same time as the filters.
  uint64_t received() const { return received_; }

 private:
  std::atomic<uint64_t> received_{0};
  static Filtered turn(std::string bytes, Side to, Output &output) {
    for (char &c : bytes) {
      if (c >= 'a' && c <= 'z') c = static_cast<char>('a' + (c - 'a' + 13) % 26);
      if (c >= 'A' && c <= 'Z') c = static_cast<char>('A' + (c - 'A' + 13) % 26);
    }
    return output.write(to, bytes) ? Filtered::replaced : Filtered::failed;
  }
};

// Adds a header to each response: how many bytes its connection has received.
class Rot13Request : public RequestHandler {
 public:
  Rot13Request(Rot13 &, Rot13Connection *connection, Exchange &) : connection_(connection) {}
  Result response(Exchange &exchange) override {
    uint64_t received = connection_ == nullptr ? 0 : connection_->received();
    exchange.set_header(Side::response, "x-received", std::to_string(received));
    return Result::declined();
  }

 private:
  Rot13Connection *connection_;
};

SNAPHOOK_MODULE_WITH(Rot13, Rot13Request, Rot13Connection, "rot13", "1.0", 0)

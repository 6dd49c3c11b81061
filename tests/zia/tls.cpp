// TLS with asio: `certificate` and `key` are paths of PEM files. The handler contains the stream, over the server's socket.
#include <Zia/API.hpp>

#include <boost/asio/ssl.hpp>
#include <memory>

namespace {

using namespace Zia::API;
namespace ssl = boost::asio::ssl;

class Tls : public Module {
public:
    const std::string& getName() const override { return name_; }
    // Throws if a setting or a file is missing or invalid.
    void onActivate(const ServerConfig& config) override {
        context_.use_certificate_chain_file(config.config.at("certificate"));
        context_.use_private_key_file(config.config.at("key"), ssl::context::pem);
    }
    RequestHandler::pointer newRequestHandler() override;

    ssl::context& context() { return context_; }

private:
    std::string name_ = "tls";
    ssl::context context_{ssl::context::tls_server};
};

class Handler : public RequestHandler {
public:
    explicit Handler(Tls& tls) : tls_(tls) {}

    HookResultType onConnectionStart(const Connection&, tcp::socket& socket) override {
        stream_.reset(new ssl::stream<tcp::socket&>(socket, tls_.context()));
        boost::system::error_code error;
        stream_->handshake(ssl::stream_base::server, error);
        return error ? HookResultType(500) : HookResult::Ok;
    }
    HookResultType onConnectionRead(const Connection&, tcp::socket&, std::vector<char>& buffer, size_t& read) override {
        boost::system::error_code error;
        read = stream_->read_some(boost::asio::buffer(buffer), error);
        return HookResult::Ok;
    }
    HookResultType onConnectionWrite(const Connection&, tcp::socket&, const std::vector<char>& buffer, size_t& written) override {
        boost::system::error_code error;
        written = boost::asio::write(*stream_, boost::asio::buffer(buffer), error);
        return HookResult::Ok;
    }
    HookResultType onConnectionEnd(const Connection&, tcp::socket&) override {
        // Declined, so that later modules are called too.
        boost::system::error_code error;
        if (stream_) stream_->shutdown(error);
        return HookResult::Declined;
    }

private:
    Tls& tls_;
    std::unique_ptr<ssl::stream<tcp::socket&>> stream_;
};

RequestHandler::pointer Tls::newRequestHandler() { return std::make_shared<Handler>(*this); }

}

ZIA_API_EXPORT Module::pointer factory() { return new Tls; }
ZIA_API_EXPORT void recycler(Module::pointer module) { delete module; }

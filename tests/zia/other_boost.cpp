// Looks like a module that was built with an older Boost: its hooks take a socket of another type. It is rejected before any of its
// code runs, so the signature is enough.
namespace boost {
namespace asio {
class executor;
template <class Protocol, class Executor>
class basic_stream_socket;
namespace ip {
class tcp;
}
}
}

namespace Zia {
namespace API {
struct Connection;

class RequestHandler {
public:
    virtual ~RequestHandler() {}
    virtual unsigned short onConnectionStart(const Connection&,
                                             boost::asio::basic_stream_socket<boost::asio::ip::tcp, boost::asio::executor>&) {
        return 0;
    }
};
}
}

extern "C" Zia::API::RequestHandler* factory() { return new Zia::API::RequestHandler; }
extern "C" void recycler(Zia::API::RequestHandler* module) { delete module; }

// `snaphook-zia-bridge`: runs modules that were built with ZiaModuleAPISpec. A Snaphook server starts it.
//
// Its standard input is a Unix socket to the server, from which it receives the modules and then the connections. Each connection
// has two descriptors: the client's, and one to the server's API, which acts as the last module. Each has its own thread.
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <iostream>
#include <mutex>
#include <thread>

#include "call.hpp"
#include "connection.hpp"
#include "control.hpp"
#include "crash.hpp"
#include "message.hpp"

namespace bridge {

namespace {

// How often to check, and how long to wait, for connections that were interrupted and for modules that end.
constexpr auto look_interval = std::chrono::milliseconds(100);
constexpr auto interrupted_time = std::chrono::seconds(2);

// The threads that serve connections.
class Threads {
public:
    void start(Service& service, Descriptor client, Descriptor api, Zia::API::Connection info, bool is_secure) {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            ++count_;
        }
        try {
            auto connection = std::make_unique<Connection>(service, std::move(client), std::move(api), std::move(info), is_secure);
            std::thread([this, connection = std::move(connection)]() mutable {
                const SignalStack stack;
                const Ended last(*this);
                try {
                    const auto served = std::move(connection);
                    served->run();
                } catch (const std::exception& error) {
                    std::cerr << "a connection cannot be served any more: " << error.what() << std::endl;
                }
            }).detach();
        } catch (const std::exception& error) {
            std::cerr << "a connection cannot be served: " << error.what() << std::endl;
            ended();
        }
    }

    // Waits until all have ended; `false` if they have not after `time`.
    bool wait(Clock::duration time) {
        const auto until = Clock::now() + time;
        std::unique_lock<std::mutex> lock(mutex_);
        // Does not wait for abandoned threads, whose number may grow in the meantime.
        while (count_ > abandoned_calls() && Clock::now() < until) changed_.wait_for(lock, look_interval);
        return count_ == 0;
    }

private:
    // Counts the thread as ended, even if a module ends it.
    struct Ended {
        explicit Ended(Threads& threads) : threads(threads) {}
        ~Ended() { threads.ended(); }
        Threads& threads;
    };

    void ended() {
        const std::lock_guard<std::mutex> lock(mutex_);
        --count_;
        changed_.notify_all();
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::size_t count_ = 0;
};

// A connection uses three descriptors, and many systems allow a process only 1,024 by default.
void raise_open_files() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

class Bridge {
public:
    // Handles messages until the server orders a stop.
    int run() {
        for (;;) {
            auto received = control::receive();
            MessageReader message(received.bytes);
            switch (message.kind()) {
            case Order::Module: load(message); break;
            case Order::Limits: limits(message); break;
            case Order::Activate: activate(message); break;
            case Order::Connection: connection(message, received); break;
            case Order::ConfigChange: change(message); break;
            case Order::Deactivate: deactivate(message); break;
            case Order::Stop: return stop(std::chrono::milliseconds(message.number()));
            }
        }
    }

private:
    void load(MessageReader& message) {
        ModuleSettings settings;
        settings.number = message.number();
        settings.name = message.text();
        settings.library = message.text();
        settings.is_optional = message.flag();
        settings.time = std::chrono::milliseconds(message.number());
        settings.config = message.pairs();
        const auto number = settings.number;
        const auto is_optional = settings.is_optional;
        try {
            service_.modules.list.push_back(std::make_unique<Module>(std::move(settings)));
        } catch (const Refusal& refusal) {
            refused(number, is_optional, refusal);
        }
    }

    void limits(MessageReader& message) {
        service_.body_bytes_max = message.number();
        service_.memory.set_limit(message.number());
    }

    void activate(MessageReader& message) {
        const auto version = message.text();
        auto& list = service_.modules.list;
        for (auto module = list.begin(); module != list.end();) {
            try {
                (*module)->activate(version);
                ++module;
            } catch (const Refusal& refusal) {
                refused((*module)->settings().number, (*module)->settings().is_optional, refusal);
                module = list.erase(module);
            }
        }
        control::send(MessageWriter(Report::Ready));
    }

    // Reports the module; ends the process unless the module is optional.
    static void refused(std::size_t number, bool is_optional, const Refusal& refusal) {
        control::send(MessageWriter(Report::Refused).field(number).field(refusal.what));
        if (!is_optional) ::_exit(EXIT_FAILURE);
    }

    void connection(MessageReader& message, Received& received) {
        // The system drops descriptors beyond the limit of this process.
        if (received.client.number() < 0 || received.api.number() < 0) {
            std::cerr << "a connection cannot be served: too many open files" << std::endl;
            return;
        }
        Zia::API::Connection info{};
        info.addr = message.text();
        info.port = static_cast<unsigned short>(message.number());
        threads_.start(service_, std::move(received.client), std::move(received.api), std::move(info), message.flag());
    }

    void change(MessageReader& message) {
        auto* const module = service_.modules.find(message.number());
        if (module != nullptr) module->change(message.pairs());
    }

    void deactivate(MessageReader& message) {
        auto* const module = service_.modules.find(message.number());
        if (module == nullptr) return;
        module->deactivate();
        if (!module->settings().is_optional) service_.modules.is_closed = true;
    }

    int stop(Clock::duration time) {
        // Ends the process if anything hangs from here on.
        std::thread([time] {
            std::this_thread::sleep_for(time + 2 * interrupted_time);
            ::_exit(EXIT_FAILURE);
        }).detach();
        if (!threads_.wait(time)) interrupt_calls();
        if (!threads_.wait(interrupted_time)) {
            // Their handlers still exist, so no module can be recycled.
            std::cerr << "connections are still served, modules end without onDeactivate" << std::endl;
            ::_exit(EXIT_FAILURE);
        }
        auto& list = service_.modules.list;
        while (!list.empty()) {
            list.back()->end();
            list.pop_back();
        }
        return EXIT_SUCCESS;
    }

    Service service_;
    Threads threads_;
};

}

}

int main(int count, char** arguments) {
    if (count == 2 && std::string(arguments[1]) == "--version") {
        std::cout << "snaphook-zia-bridge, ZiaModuleAPISpec " << Zia::API::Definitions::VERSION << ", Boost " << BOOST_LIB_VERSION
                  << std::endl;
        return EXIT_SUCCESS;
    }
    struct stat input {};
    if (count > 1 || ::fstat(STDIN_FILENO, &input) != 0 || !S_ISSOCK(input.st_mode)) {
        std::cerr << "snaphook-zia-bridge is started by `snaphook serve`, for modules with `kind = 'zia'`" << std::endl;
        return 2;
    }
    bridge::raise_open_files();
    // Output of modules reaches the server's log line by line.
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    bridge::control::open();
    bridge::report_crashes();
    const bridge::SignalStack stack;
    bridge::start_watchdog();
    static bridge::Bridge bridge;
    return bridge.run();
}

// A call of a module's code, from its begin to its end: which module and hook run on this thread, and until when.
//
// Foreign code cannot be stopped. What waits for the peer ends when its socket is shut down. What still runs some seconds
// later is abandoned: its connection is over, and its thread goes on alone. Beyond `abandoned_max` of them the process
// ends, and the server starts another one.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace bridge {

using Clock = std::chrono::steady_clock;

// What a late call holds up.
class Interruptible {
public:
    // Ends what waits for the peer; `fails`: the module, not the peer, is late.
    virtual void interrupt(bool fails) = 0;
    // Whatever runs for it will not end: frees what others wait for.
    virtual void abandon() = 0;

protected:
    ~Interruptible() = default;
};

// No module runs.
constexpr std::size_t no_module = static_cast<std::size_t>(-1);

class Call {
public:
    enum class Waits { ForPeer, No };

    // `held_up`: null where a late call ends the process.
    Call(Interruptible* held_up, std::size_t module, const char* what, Waits waits, Clock::duration time);
    Call(const Call&) = delete;
    ~Call();

    // Whether its time was over; what it gave is then of no use.
    bool is_late() const;

    // What runs on this thread; for the signal handler.
    static void running(std::size_t& module, const char*& what);

private:
    friend struct Watchdog;
    enum class Stage { Running, Interrupted, Abandoned };

    Interruptible* held_up_;
    std::size_t module_;
    const char* what_;
    Waits waits_;
    Clock::duration time_;
    Clock::time_point deadline_;
    Stage stage_ = Stage::Running;
    // What ran on this thread before.
    const Call* outer_;
};

// Starts the thread that looks after deadlines.
void start_watchdog();

// Ends what waits for peers now.
void interrupt_calls();

// How many are abandoned, and still run.
std::size_t abandoned_calls();

// Tells the server that a module failed, in one line.
void report_failure(std::size_t module, const std::string& what);

// A text of a module as one line of bounded length.
std::string one_line(std::string text);

}

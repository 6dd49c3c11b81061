// A call of a module's code: which module and hook run on this thread, and their deadline.
//
// Foreign code cannot be stopped. A call that waits for the peer ends when its socket is shut down. A call that still runs some
// seconds later is abandoned: its connection is over, but its thread continues. If more than `abandoned_max` calls are
// abandoned, the process ends, and the server starts a new one.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

namespace bridge {

using Clock = std::chrono::steady_clock;

// What a late call blocks, such as a connection.
class Interruptible {
public:
    // Interrupts waits for the peer; `fails`: the module is late, not the peer.
    virtual void interrupt(bool fails) = 0;
    // The call will not return: releases what others wait for.
    virtual void abandon() = 0;

protected:
    ~Interruptible() = default;
};

// No module is running.
constexpr std::size_t no_module = static_cast<std::size_t>(-1);

class Call {
public:
    enum class Waits { ForPeer, No };

    // `held_up`: if null, a late call ends the process.
    Call(Interruptible* held_up, std::size_t module, const char* what, Waits waits, Clock::duration time);
    Call(const Call&) = delete;
    ~Call();

    // Whether the deadline has passed; the result must then be discarded.
    bool is_late() const;

    // The innermost call on this thread; for the signal handler.
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
    // The call around this one on the same thread.
    const Call* outer_;
};

// Starts the thread that enforces deadlines.
void start_watchdog();

// Interrupts all current waits for peers.
void interrupt_calls();

// The number of abandoned calls that still run.
std::size_t abandoned_calls();

// Reports to the server, in one line, that a module failed.
void report_failure(std::size_t module, const std::string& what);

// Turns a module's text into one line of limited length.
std::string one_line(std::string text);

}

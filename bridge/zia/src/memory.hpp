// The memory budget for the bodies of all connections.
#pragma once

#include <atomic>
#include <cstddef>

namespace bridge {

class MemoryBudget {
public:
    void set_limit(std::size_t bytes) { limit_ = bytes; }

    bool take(std::size_t bytes) {
        if (used_.fetch_add(bytes) + bytes <= limit_) return true;
        used_ -= bytes;
        return false;
    }
    void give_back(std::size_t bytes) { used_ -= bytes; }

private:
    std::atomic<std::size_t> used_{0};
    std::atomic<std::size_t> limit_{0};
};

// The memory that one connection has reserved; released by the destructor.
class Lease {
public:
    explicit Lease(MemoryBudget& budget) : budget_(budget) {}
    Lease(const Lease&) = delete;
    ~Lease() { budget_.give_back(taken_); }

    // Reserves more memory. `false`: not enough is left.
    bool grow(std::size_t bytes) {
        if (!budget_.take(bytes)) return false;
        taken_ += bytes;
        return true;
    }

private:
    MemoryBudget& budget_;
    std::size_t taken_ = 0;
};

}

// The modules: they are loaded and activated, get configuration changes, and are destroyed in reverse order.
#pragma once

#include <Zia/API.hpp>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "call.hpp"

namespace bridge {

using Pairs = std::vector<std::pair<std::string, std::string>>;

// Why a module cannot be used, in one line.
struct Refusal {
    std::string what;
};

// The settings of a module.
struct ModuleSettings {
    std::size_t number;
    std::string name;
    std::string library;
    bool is_optional;
    // The time limit of each of its request hooks.
    Clock::duration time;
    Pairs config;
};

class Module {
public:
    // Loads the library and creates the module; throws `Refusal`.
    explicit Module(ModuleSettings settings);
    Module(const Module&) = delete;

    // Calls `onActivate`, then `onConfigChange`; throws `Refusal`.
    void activate(const std::string& version);
    void change(const Pairs& config);
    // Calls `onDeactivate`, then the recycler.
    void end();

    Zia::API::RequestHandler::pointer new_handler();

    const ModuleSettings& settings() const { return settings_; }
    // The module is not called any more.
    void deactivate() { is_active_ = false; }
    bool is_active() const { return is_active_; }

private:
    ModuleSettings settings_;
    Zia::API::ServerConfig config_;
    Zia::API::Module* module_ = nullptr;
    Zia::API::Module::factory make_ = nullptr;
    Zia::API::Module::recycler recycler_ = nullptr;
    // A module creates one handler at a time, and none while its configuration changes.
    std::mutex mutex_;
    bool is_described_ = false;
    std::atomic<bool> is_active_{true};
};

// All modules, in the order of the configuration.
struct Modules {
    std::vector<std::unique_ptr<Module>> list;
    // A module that is not optional was deactivated, so all requests are rejected.
    std::atomic<bool> is_closed{false};

    // Null if there is no such module.
    Module* find(std::size_t number) const;
};

}

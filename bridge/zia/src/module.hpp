// The modules: loaded, activated, told of changes, given back in reverse order.
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

// What the configuration says of a module.
struct ModuleSettings {
    std::size_t number;
    std::string name;
    std::string library;
    bool is_optional;
    // Of each of its request hooks.
    Clock::duration time;
    Pairs config;
};

class Module {
public:
    // Loads the library and makes the module; throws `Refusal`.
    explicit Module(ModuleSettings settings);
    Module(const Module&) = delete;

    // `onActivate`, then `onConfigChange`; throws `Refusal`.
    void activate(const std::string& version);
    void change(const Pairs& config);
    // `onDeactivate`, then the recycler.
    void end();

    Zia::API::RequestHandler::pointer new_handler();

    const ModuleSettings& settings() const { return settings_; }
    // From now on it is not asked any more.
    void deactivate() { is_active_ = false; }
    bool is_active() const { return is_active_; }

private:
    ModuleSettings settings_;
    Zia::API::ServerConfig config_;
    Zia::API::Module* module_ = nullptr;
    Zia::API::Module::factory make_ = nullptr;
    Zia::API::Module::recycler recycler_ = nullptr;
    // Modules are not asked for two handlers, or for one while their configuration changes, at once.
    std::mutex mutex_;
    bool is_described_ = false;
    std::atomic<bool> is_active_{true};
};

// All of them, in the order of the configuration.
struct Modules {
    std::vector<std::unique_ptr<Module>> list;
    // One that is not optional was deactivated: no request is let through.
    std::atomic<bool> is_closed{false};

    // Null: there is none.
    Module* find(std::size_t number) const;
};

}

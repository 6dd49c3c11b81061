// One module: its library, its object and its configuration.
#include "module.hpp"

#include <dlfcn.h>

#include <iostream>
#include <stdexcept>

#include "elf.hpp"
#include "exceptions.hpp"
#include "hooks.hpp"
#include "refusals.hpp"

namespace bridge {

namespace {

// Time limit of each step of starting, configuring and ending a module.
constexpr auto step_time = std::chrono::seconds(20);

void put(Zia::API::ServerConfig& server, const Pairs& config) {
    server.config.clear();
    for (const auto& [key, value] : config) server.config[key] = value;
}

// Runs one step of a start. If it throws, or returns a text, the module cannot be used for that reason.
template <class F>
void step(std::size_t module, const char* what, F run) {
    std::string reason;
    const Call call(nullptr, module, what, Call::Waits::No, step_time);
    guarded([&] { reason = run(); }, [&](const std::string& thrown) { reason = "its " + std::string(what) + " " + thrown; });
    if (!reason.empty()) throw Refusal{one_line(reason)};
}

}

Module::Module(ModuleSettings settings) : settings_(std::move(settings)) {
    step(settings_.number, "library", [&]() -> std::string {
        try {
            const auto reason = refusal(read_library(settings_.library));
            return reason.empty() ? reason : "its library " + reason;
        } catch (const std::runtime_error& error) {
            return std::string("its library ") + error.what();
        }
    });
    step(settings_.number, "library", [&]() -> std::string {
        // Never closed: C++ libraries stay in memory anyway, and other threads may still run their code.
        void* const library = ::dlopen(settings_.library.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) return std::string("its library cannot be loaded: ") + ::dlerror();
        recycler_ = reinterpret_cast<Zia::API::Module::recycler>(::dlsym(library, "recycler"));
        make_ = reinterpret_cast<Zia::API::Module::factory>(::dlsym(library, "factory"));
        return recycler_ == nullptr || make_ == nullptr ? "its library exports `factory` or `recycler` as a null pointer" : "";
    });
    step(settings_.number, "factory", [&]() -> std::string {
        module_ = make_();
        return module_ == nullptr ? "its factory() returned a null pointer instead of a module" : "";
    });
}

void Module::activate(const std::string& version) {
    config_.name = "snaphook";
    config_.version = version;
    config_.platform = Zia::API::ServerConfig::Platform::Linux;
    put(config_, settings_.config);
    step(settings_.number, "onActivate", [&]() -> std::string {
        module_->onActivate(config_);
        return {};
    });
    step(settings_.number, "onConfigChange", [&]() -> std::string {
        module_->onConfigChange(config_);
        return {};
    });
}

void Module::change(const Pairs& config) {
    const Call call(nullptr, settings_.number, "onConfigChange", Call::Waits::No, step_time);
    const std::lock_guard<std::mutex> lock(mutex_);
    put(config_, config);
    guarded([&] { module_->onConfigChange(config_); },
            [&](const std::string& thrown) { report_failure(settings_.number, "onConfigChange " + thrown); });
}

void Module::end() {
    const Call call(nullptr, settings_.number, "onDeactivate", Call::Waits::No, step_time);
    const auto report = [&](const std::string& thrown) { report_failure(settings_.number, "deactivation " + thrown); };
    guarded([&] { module_->onDeactivate(); }, report);
    guarded([&] { recycler_(module_); }, report);
}

Zia::API::RequestHandler::pointer Module::new_handler() {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto handler = module_->newRequestHandler();
    if (handler != nullptr && !is_described_) {
        is_described_ = true;
        std::clog << "module `" << settings_.name << "` has " << defined_hooks(*handler) << std::endl;
    }
    return handler;
}

Module* Modules::find(std::size_t number) const {
    for (const auto& module : list) {
        if (module->settings().number == number) return module.get();
    }
    return nullptr;
}

}

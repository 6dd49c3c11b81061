// Creates and destroys the request handlers of one connection.
#include "handlers.hpp"

namespace bridge {

bool Handlers::make() {
    for (const auto& module : modules_.list) {
        if (!module->is_active()) continue;
        const auto& settings = module->settings();
        Entry entry{module.get(), nullptr};
        std::string reason = "returned a null pointer";
        {
            const Call call(&connection_, settings.number, "newRequestHandler", Call::Waits::No, settings.time);
            guarded([&] { entry.handler = module->new_handler(); }, [&](const std::string& thrown) { reason = thrown; });
        }
        if (entry.handler == nullptr) {
            report_failure(settings.number, "newRequestHandler " + reason);
            return false;
        }
        entries_.push_back(std::move(entry));
    }
    return true;
}

void Handlers::drop() {
    while (!entries_.empty()) {
        auto entry = std::move(entries_.back());
        entries_.pop_back();
        const auto& settings = entry.module->settings();
        const Call call(&connection_, settings.number, "the handler's destructor", Call::Waits::No, settings.time);
        guarded([&] { entry.handler.reset(); },
                [&](const std::string& thrown) { report_failure(settings.number, "the handler's destructor " + thrown); });
    }
}

}

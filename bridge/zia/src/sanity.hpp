// Checks requests and responses that modules have changed, before they are written.
#pragma once

#include <Zia/API.hpp>
#include <string>

namespace bridge {

// Removes spaces and line breaks around header values. Returns, in one line, what cannot be sent; empty: nothing.
std::string fault(Zia::API::Request& request);
std::string fault(Zia::API::Response& response);

}

// What modules leave in requests and responses, checked before it is written anywhere.
#pragma once

#include <Zia/API.hpp>
#include <string>

namespace bridge {

// Spaces and line ends around header values are removed. What then cannot be sent is said in one line; empty: all is well.
std::string fault(Zia::API::Request& request);
std::string fault(Zia::API::Response& response);

}

// The last error of this thread, as specee_last_error() returns it.
#pragma once

#include <cstdint>
#include <string>

void specee_set_error(const std::string & message);

// How a function of the C ABI reports an error: returns `status`.
inline int32_t specee_fail(int32_t status, const std::string & message) {
    specee_set_error(message);
    return status;
}

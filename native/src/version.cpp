// Who this library is, and the last error of each thread.
#include "error.h"
#include "specee.h"

static thread_local std::string last_error;

void specee_set_error(const std::string & message) {
    last_error = message;
}

const char * specee_last_error(void) {
    return last_error.c_str();
}

int32_t specee_abi_version(void) {
    return SPECEE_ABI_VERSION;
}

const char * specee_build_info(void) {
    return SPECEE_BUILD_INFO;
}

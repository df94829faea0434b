#include "asserts.h"

#include "error.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <stdexcept>

void specee_assertion_failed(const char * file, int line, const char * format, ...) {
    char    what[256], message[384];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    const char * name = std::strrchr(file, '/');
    std::snprintf(message, sizeof(message), "%s (%s:%d)", what, name == nullptr ? file : name + 1, line);
    specee_set_error(message); // for what llama.cpp catches itself
    throw std::runtime_error(message);
}

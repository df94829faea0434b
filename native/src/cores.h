// What is known of the system's cores: on Linux only.
#pragma once

#include <cstdint>

// Seconds since some moments in the past.
struct specee_core_times {
    double clock = 0;
    double idle  = 0; // of all cores that this process may use
    double own   = 0; // of all threads of this process, on any core
};

// Cores that this process may use; 0 when unknown.
int32_t specee_core_count();
// False when unknown.
bool specee_core_times_now(specee_core_times & now);

// How much of this machine's memory can still be had: what a worker tells of its CPU.
#pragma once

#include <stddef.h>

// Bytes; `total` where the system does not say.
size_t specee_free_memory(size_t total);

#include "free_memory.h"

#include <algorithm>
#include <cstdio>

size_t specee_free_memory(size_t total) {
    std::FILE * file = std::fopen("/proc/meminfo", "r");
    if (file == nullptr) {
        return total;
    }
    char               line[128];
    unsigned long long kib      = 0;
    bool               is_known = false;
    while (!is_known && std::fgets(line, sizeof(line), file) != nullptr) {
        is_known = std::sscanf(line, "MemAvailable: %llu kB", &kib) == 1;
    }
    std::fclose(file);
    return is_known ? std::min(total, (size_t) kib << 10) : total;
}

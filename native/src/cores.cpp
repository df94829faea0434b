#include "cores.h"

#ifdef __linux__

#include <fcntl.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

static double seconds_of(clockid_t clock) {
    timespec t = {};
    clock_gettime(clock, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

// The beginning of a file, ended by a zero; "" when it cannot be read.
static const char * read_text(const char * path, std::vector<char> & text) {
    size_t    size = 0;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    while (file >= 0 && size + 1 < text.size()) {
        const ssize_t got = read(file, text.data() + size, text.size() - 1 - size);
        if (got <= 0) {
            break;
        }
        size += got;
    }
    if (file >= 0) {
        close(file);
    }
    text[size] = 0;
    return text.data();
}

int32_t specee_core_count() {
    cpu_set_t cores;
    return sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 0;
}

bool specee_core_times_now(specee_core_times & now) {
    static const double            tick = 1.0 / sysconf(_SC_CLK_TCK);
    thread_local std::vector<char> text(1 << 16); // the lines of some 500 cores; the rest is not wanted

    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof(cores), &cores) != 0) {
        return false;
    }
    int32_t n_seen = 0;
    now.idle       = 0;
    for (const char * line = read_text("/proc/stat", text); line != nullptr && std::strncmp(line, "cpu", 3) == 0;) {
        int                core = 0;
        unsigned long long idle = 0, io_wait = 0;
        if (std::sscanf(line, "cpu%d %*u %*u %*u %llu %llu", &core, &idle, &io_wait) == 3 && core >= 0 &&
            core < CPU_SETSIZE && CPU_ISSET(core, &cores)) {
            now.idle += tick * (idle + io_wait);
            n_seen++;
        }
        line = std::strchr(line, '\n');
        line = line == nullptr ? nullptr : line + 1;
    }
    now.clock = seconds_of(CLOCK_MONOTONIC);
    now.own   = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    return n_seen > 0 && n_seen == CPU_COUNT(&cores); // in containers the numbers may be other ones
}

#else

int32_t specee_core_count() {
    return 0;
}

bool specee_core_times_now(specee_core_times &) {
    return false;
}

#endif

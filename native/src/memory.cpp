// Whether memory can be had, asked before C code of ggml's takes it: that code does not look, or ends the process.
#include "error.h"

// Beside what is asked for: a scheduler's and a graph's small parts, work memory, stacks of threads.
static constexpr size_t SMALL_PARTS = 32 << 20;

void specee_need_memory(size_t bytes) {
    if (bytes > SIZE_MAX / 2) {
        throw std::bad_alloc();
    }
    ::operator delete(::operator new(bytes + SMALL_PARTS)); // pages that nobody writes to take none
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_memory_left(int64_t bytes) {
    return specee_guard((int32_t) SPECEE_FAILED, [&] {
        if (bytes < 0) {
            return specee_fail(SPECEE_INVALID, "memory has no negative size");
        }
        specee_need_memory((size_t) bytes);
        specee_set_error("");
        return (int32_t) SPECEE_OK;
    });
}

// How the functions of the C ABI report errors: a status, and the last error of this thread.
#pragma once

#include "specee.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <string>

// What specee_last_error() returns; a message beyond a thousand bytes is cut.
void specee_set_error(const char * message) noexcept;

// Returns `status`.
inline int32_t specee_fail(int32_t status, const char * message) noexcept {
    specee_set_error(message);
    return status;
}

inline int32_t specee_fail(int32_t status, const std::string & message) noexcept {
    return specee_fail(status, message.c_str());
}

// Whether all of these are given; if not, the entry fails as SPECEE_INVALID.
template <typename... P> bool specee_given(const P *... pointers) noexcept {
    const bool all = (... && (pointers != nullptr));
    if (!all) {
        specee_set_error("an array that is needed was not given");
    }
    return all;
}

// Throws std::bad_alloc unless so much memory can still be had. C code of ggml's does not look whether it gets memory,
// or ends the process: where it is about to take some, this asks before.
void specee_need_memory(size_t bytes);

// Runs the body of a C entry. No exception leaves it: one that does leave the body makes it return `failed`.
template <typename R, typename F> R specee_guard(R failed, F && body) noexcept {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        specee_set_error("out of memory");
    } catch (const std::exception & e) {
        specee_set_error(e.what());
    } catch (...) {
        specee_set_error("an exception of an unknown kind");
    }
    return failed;
}

// The same for an entry that takes a handle, which may be null: after the handle was freed.
template <typename H, typename R, typename F> R specee_guard(H * handle, R failed, F && body) noexcept {
    if (handle == nullptr) {
        specee_set_error("no open model was given");
        return failed;
    }
    return specee_guard(failed, body);
}

// The same for an entry that returns a status.
template <typename H, typename F> int32_t specee_entry(H * handle, F && body) noexcept {
    return specee_guard(handle, (int32_t) SPECEE_FAILED, body);
}

// Runs `undo` when the scope is left, by an exception too.
template <typename F> struct specee_scope_guard {
    F undo;

    explicit specee_scope_guard(F undo) : undo(undo) {}
    specee_scope_guard(const specee_scope_guard &) = delete;
    ~specee_scope_guard() { undo(); }
};

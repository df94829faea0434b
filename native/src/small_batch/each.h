// Loops that are no loops.
#pragma once

#include <utility>

namespace specee::small_batch {
namespace {

template <class F, int... I> inline void each(F f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>()), ...);
}
template <int N, class F> inline void each(F f) { // f(0) to f(N - 1), of constants: what is indexed stays in registers
    each(f, std::make_integer_sequence<int, N>());
}

} // namespace
} // namespace specee::small_batch

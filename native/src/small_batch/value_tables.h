// The 16 weights that the nibbles of some types stand for.
#pragma once

#include <cstdint>

namespace specee::small_batch {
namespace {

struct alignas(16) Values {
    int8_t at[16];
};

constexpr Values iq4_values = { { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 } };
constexpr Values fp4_values = { { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 } };

// Unsigned, for instructions that multiply unsigned weights with signed activations.
constexpr Values raised(Values values, int by) {
    for (int8_t & value : values.at) {
        value = int8_t(uint8_t(value + by));
    }
    return values;
}

} // namespace
} // namespace specee::small_batch

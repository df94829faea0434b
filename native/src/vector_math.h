// Sums over short vectors. Included where the instructions that ggml was compiled for are used: see CMakeLists.txt.
#pragma once

#include <cmath>
#include <cstdint>

static inline float specee_dot(const float * a, const float * b, int32_t n) {
    float s[8] = {}; // independent sums, so that the compiler may use vectors
    for (int32_t i = 0; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; ++j) {
            s[j] += a[i + j] * b[i + j];
        }
    }
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

static inline float specee_inverse_rms(const float * v, int32_t n, float eps) {
    return 1.0f / std::sqrt(specee_dot(v, v, n) / n + eps);
}

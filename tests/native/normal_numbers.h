// Normally distributed numbers to fill tensors with, from a table: to draw each one would take most of a test's time.
#pragma once

#include <cstddef>
#include <random>
#include <vector>

class normal_numbers {
  public:
    explicit normal_numbers(int seed) : at(size_t(seed) * 7919) {}

    float operator()() {
        static const std::vector<float> drawn = [] {
            std::mt19937                    random(1);
            std::normal_distribution<float> normal;
            std::vector<float>              numbers(n);
            for (float & x : numbers) {
                x = normal(random);
            }
            return numbers;
        }();
        return drawn[at++ % n];
    }

  private:
    static constexpr size_t n = 65521; // a prime number: no two rows of a tensor are alike
    size_t                  at;
};

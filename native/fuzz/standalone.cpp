// Runs a fuzz target without libFuzzer, where there is only gcc: TARGET RUNS [SEED [FILE...]]. Each run is a random
// input, or with files one of these with some bytes changed.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size);

using Input = std::vector<uint8_t>;

int main(int argc, char ** argv) {
    if (argc < 2) {
        std::fprintf(stderr, "usage: %s RUNS [SEED [FILE...]]\n", argv[0]);
        return 2;
    }
    const long         n_runs = std::atol(argv[1]);
    std::mt19937       chance(argc > 2 ? std::atoi(argv[2]) : 1);
    std::vector<Input> files;
    for (int i = 3; i < argc; ++i) {
        std::ifstream file(argv[i], std::ios::binary);
        files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    for (long run = 0; run < n_runs; ++run) {
        Input input;
        if (files.empty()) {
            input.resize(chance() % 1024);
            for (uint8_t & byte : input) {
                byte = (uint8_t) chance();
            }
        } else {
            input = files[chance() % files.size()];
            for (unsigned n = chance() % 8; n > 0 && !input.empty(); --n) {
                input[chance() % input.size()] = (uint8_t) chance();
            }
        }
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::printf("%ld runs\n", n_runs);
    return 0;
}

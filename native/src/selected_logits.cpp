// Which of a row's logits the host gets from a device. Of a vocabulary of 150,000 tokens a row has 600 kB of them,
// which a network takes milliseconds for; what chooses a token looks at the greatest ones. So the device selects these,
// and all of a row come where they are asked for: by a grammar, by penalties that raise tokens, by logprobs.
#include "rows.h"

#include "llama-graph.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>

// More than top-k 40 and the repetition penalty's 64 tokens take.
static constexpr int32_t N_SELECTED = 128;
// A row: the logits, in no order; their tokens; the sum of all logits, which is a number where all are.
static constexpr int32_t N_NUMBERS = 2 * N_SELECTED + 1;

// Selecting takes a core 4 ns a token (llama.cpp's partial sort, Zen 4). A bus or another process of this machine
// brings the whole row faster, a network of 1 Gbit/s takes eight times as long.
static constexpr double SELECT_SECONDS = 4e-9;

// What one number more takes from this device to the host: the least of a few trials.
static double seconds_a_number(const specee_device & device) {
    static constexpr int64_t N_TRIED = 1 << 18;
    specee_device_tensor     some;
    if (!some.allocate(device.buft(), GGML_TYPE_F32, N_TRIED, 1) || ggml_backend_buffer_is_host(some.buffer.get())) {
        return 0;
    }
    std::vector<float> numbers(N_TRIED);
    ggml_backend_tensor_set(some.tensor, numbers.data(), 0, ggml_nbytes(some.tensor));
    const auto seconds_of = [&](int64_t n) {
        using clock    = std::chrono::steady_clock;
        double seconds = std::numeric_limits<double>::infinity();
        for (int i = 0; i < 3; ++i) {
            const auto began = clock::now();
            ggml_backend_tensor_get(some.tensor, numbers.data(), 0, n * sizeof(float));
            seconds = std::min(seconds, std::chrono::duration<double>(clock::now() - began).count());
        }
        return seconds;
    };
    return (seconds_of(N_TRIED) - seconds_of(1)) / N_TRIED;
}

void specee_rows::select_on_devices(int32_t which) {
    const int32_t head = device_of.back();
    const bool    can  = head >= 0 && n_vocab > N_NUMBERS;
    selects            = can && (which == 0 ? seconds_a_number(devices[head]) > SELECT_SECONDS : which > 0);
}

void specee_rows::add_selection(specee_range_graph & graph, ggml_cgraph * gf) const {
    ggml_tensor * all = graph.result->get_logits();
    if (!graph.range.selects || all == nullptr) {
        return;
    }
    ggml_context * ctx0     = graph.result->get_ctx();
    const int64_t  n        = all->ne[1];
    ggml_tensor *  tokens   = ggml_top_k(ctx0, all, N_SELECTED);
    ggml_tensor *  greatest = ggml_get_rows(ctx0, ggml_reshape_3d(ctx0, all, 1, n_vocab, n), tokens);
    ggml_tensor *  pairs    = ggml_concat(ctx0, ggml_reshape_2d(ctx0, greatest, N_SELECTED, n),
                                          ggml_cast(ctx0, tokens, GGML_TYPE_F32), 0); // exact: there are less than 2^24
    graph.selected.tensor   = ggml_concat(ctx0, pairs, ggml_sum_rows(ctx0, all), 0);
    ggml_set_output(all);
    ggml_set_output(graph.selected.tensor);
    ggml_build_forward_expand(gf, graph.selected.tensor);
}

int32_t specee_rows::logits_row(llama_seq_id slot, int32_t i) const {
    for (const specee_group & group : logits_groups) {
        if (group.slot == slot && i >= 0 && i < group.n_rows) {
            return group.first + i;
        }
    }
    specee_fail(SPECEE_INVALID, "this slot has no such row of logits");
    return -1;
}

const float * specee_rows::logits_of(llama_seq_id slot, int32_t i) {
    const int32_t row = logits_row(slot, i);
    if (row < 0) {
        return nullptr;
    }
    wants_whole_rows = true;
    if (logits == nullptr) { // they are where they were computed
        const ggml_tensor * all = logits_owner->result->get_logits();
        logits_host.resize(ggml_nelements(all));
        ggml_backend_tensor_get(all, logits_host.data(), 0, ggml_nbytes(all));
        ++transfers.n_to_host;
        transfers.bytes_to_host += (int64_t) ggml_nbytes(all);
        ++transfers.n_waits;
        logits = logits_host.data();
    }
    return logits + (size_t) row * n_vocab;
}

bool specee_rows::greatest_logits(llama_seq_id slot, int32_t i, int32_t n) {
    const int32_t row = logits_row(slot, i);
    if (row < 0 || logits_owner == nullptr || logits_owner->selected.tensor == nullptr || n >= N_SELECTED) {
        return false;
    }
    const float * numbers = logits_owner->selected.row(row);
    if (!(numbers[N_NUMBERS - 1] < INFINITY)) {
        throw std::runtime_error(SPECEE_NO_NUMBERS);
    }
    sample_buffer.clear();
    for (int32_t j = 0; j < N_SELECTED; ++j) {
        sample_buffer.push_back({ (llama_token) numbers[N_SELECTED + j], numbers[j], 0.0f });
    }
    std::sort(sample_buffer.begin(), sample_buffer.end(), specee_is_greater);
    // those that are as great as the last one may have been left out
    const bool is_whole = sample_buffer[n - 1].logit > sample_buffer.back().logit;
    sample_buffer.resize(n);
    return is_whole;
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_select_on_devices(specee_rows * rows, int32_t which) {
    return specee_entry(rows, [&] {
        rows->select_on_devices(which);
        return (int32_t) SPECEE_OK;
    });
}

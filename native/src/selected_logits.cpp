// Which of a row's logits the host gets from a device. Of a vocabulary of 150,000 tokens a row has 600 kB of them,
// which a network takes milliseconds for; what chooses a token looks at the greatest ones. So the device selects these,
// and all of a row come where they are asked for: by a grammar, by penalties that raise tokens, by logprobs.
#include "rows.h"

#include "llama-graph.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

// More than top-k 40 and the repetition penalty's 64 tokens take.
static constexpr int32_t N_SELECTED = 128;
// A row: the logits, in no order; their tokens; the sum of all logits, which is a number where all are.
static constexpr int32_t N_NUMBERS = 2 * N_SELECTED + 1;

// Selecting takes longer than a bus within a machine needs for the whole row. Behind llama.cpp's RPC back end is a
// network.
static bool is_remote(ggml_backend_dev_t dev) {
    return std::strcmp(ggml_backend_reg_name(ggml_backend_dev_backend_reg(dev)), "RPC") == 0;
}

void specee_rows::select_on_devices(int32_t which) {
    const int32_t head = device_of.back();
    selects            = head >= 0 && n_vocab > N_NUMBERS && (which == 0 ? is_remote(devices[head].dev) : which > 0);
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

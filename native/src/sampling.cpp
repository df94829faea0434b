// Rows of logits: read, and shaped by llama.cpp's samplers.
#include "rows.h"

#include <algorithm>
#include <cmath>

// The `n` greatest logits, in no order: one pass with a running threshold.
static void select_greatest(const float * logits, int32_t n_vocab, int32_t n,
                            std::vector<std::pair<float, llama_token>> & heap, std::vector<llama_token_data> & out) {
    const auto greater = [](const auto & a, const auto & b) { return a.first > b.first; };
    heap.clear();
    for (int32_t i = 0; i < n; ++i) {
        heap.emplace_back(logits[i], i);
    }
    std::make_heap(heap.begin(), heap.end(), greater);
    for (int32_t i = n; i < n_vocab; ++i) {
        if (logits[i] > heap.front().first) {
            std::pop_heap(heap.begin(), heap.end(), greater);
            heap.back() = { logits[i], i };
            std::push_heap(heap.begin(), heap.end(), greater);
        }
    }
    // ascending ids: samplers that break ties by order see what they would see of the whole vocabulary
    std::sort(heap.begin(), heap.end(), [](const auto & a, const auto & b) { return a.second < b.second; });
    out.clear();
    for (const auto & [logit, id] : heap) {
        out.push_back({ id, logit, 0.0f });
    }
}

// Of a damaged model they may not be: sorting them would be undefined.
static bool are_numbers(const float * logits, int32_t n) {
    int32_t n_bad = 0;
    for (int32_t i = 0; i < n; ++i) {
        n_bad += !(logits[i] < INFINITY);
    }
    return n_bad == 0;
}

static int32_t fail_no_numbers() {
    return specee_fail(SPECEE_FAILED, "the model gives no numbers: its file is damaged");
}

// n: there is no greatest one.
static llama_token argmax(const float * logits, int32_t n) {
    float best[16];
    std::fill_n(best, 16, -INFINITY);
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) { // lanes, so that the compiler may use vectors
        for (int j = 0; j < 16; ++j) {
            best[j] = logits[i + j] > best[j] ? logits[i + j] : best[j];
        }
    }
    for (; i < n; ++i) {
        best[0] = std::max(best[0], logits[i]);
    }
    const float top = *std::max_element(best, best + 16);
    return std::find(logits, logits + n, top) - logits;
}

static llama_token_data_array shape(specee_rows * rows, const float * logits, llama_sampler * chain,
                                    int32_t preselect) {
    auto & buffer = rows->sample_buffer;
    if (preselect > 0 && preselect < rows->n_vocab) {
        select_greatest(logits, rows->n_vocab, preselect, rows->sample_heap, buffer);
    } else {
        buffer.resize(rows->n_vocab);
        for (int32_t i = 0; i < rows->n_vocab; ++i) {
            buffer[i] = { i, logits[i], 0.0f };
        }
    }
    llama_token_data_array array = { buffer.data(), buffer.size(), -1, false };
    llama_sampler_apply(chain, &array);
    return array;
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

const float * specee_rows_logits(const specee_rows * rows, llama_seq_id slot, int32_t i) {
    return specee_guard(rows, (const float *) nullptr, [&] { return rows->logits_of(slot, i); });
}

int32_t specee_rows_greedy(specee_rows * rows, llama_seq_id slot, int32_t i, llama_sampler * chain, int32_t preselect,
                           llama_token * out) {
    return specee_entry(rows, [&] {
        const float * logits = rows->logits_of(slot, i);
        if (logits == nullptr || !specee_given(out)) {
            return (int32_t) SPECEE_INVALID;
        }
        if (chain == nullptr) {
            const llama_token best = argmax(logits, rows->n_vocab);
            if (best >= rows->n_vocab) {
                return fail_no_numbers();
            }
            *out = best;
            return (int32_t) SPECEE_OK;
        }
        if (!are_numbers(logits, rows->n_vocab)) {
            return fail_no_numbers();
        }
        const llama_token_data_array array = shape(rows, logits, chain, preselect);
        if (array.size == 0) {
            return specee_fail(SPECEE_FAILED, "no token is allowed here");
        }
        *out = std::max_element(array.data, array.data + array.size, [](const auto & a, const auto & b) {
                   return a.logit < b.logit;
               })->id;
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_rows_distribution(specee_rows * rows, llama_seq_id slot, int32_t i, llama_sampler * chain,
                                 int32_t preselect, int32_t capacity, llama_token * tokens, float * probs) {
    return specee_entry(rows, [&] {
        const float * logits = rows->logits_of(slot, i);
        if (logits == nullptr) {
            return (int32_t) SPECEE_INVALID;
        }
        if (chain == nullptr || capacity < 1 || tokens == nullptr || probs == nullptr) {
            return specee_fail(SPECEE_INVALID, "a distribution needs a chain and room");
        }
        if (!are_numbers(logits, rows->n_vocab)) {
            return fail_no_numbers();
        }
        const llama_token_data_array array = shape(rows, logits, chain, preselect);
        const auto                   n     = (int32_t) std::min<size_t>(array.size, capacity);
        std::partial_sort(array.data, array.data + n, array.data + array.size,
                          [](const auto & a, const auto & b) { return a.logit > b.logit; });
        if (n == 0 || !(array.data[0].logit > -INFINITY)) {
            return specee_fail(SPECEE_FAILED, "no token is allowed here");
        }
        double sum = 0;
        for (int32_t j = 0; j < n; ++j) {
            tokens[j] = array.data[j].id;
            probs[j]  = std::exp(array.data[j].logit - array.data[0].logit);
            sum += probs[j];
        }
        for (int32_t j = 0; j < n; ++j) {
            probs[j] /= sum;
        }
        return n;
    });
}

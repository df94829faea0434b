// Rows of logits: read, and shaped by llama.cpp's samplers.
#include "grammar.h"
#include "rows.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

// The `n` greatest logits, in no order: one pass with a running threshold.
static void select_greatest(const float * logits, int32_t n_vocab, int32_t n,
                            std::vector<std::pair<float, llama_token>> & heap, std::vector<llama_token_data> & out) {
    const auto greater = [](const auto & a, const auto & b) {
        return a.first > b.first || (a.first == b.first && a.second < b.second);
    };
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

// Of all tokens, those that the grammar allows, as far as they are wanted, in ascending order of their ids. The
// greatest logits are looked at first, because looking at all of a vocabulary takes longer than computing a token.
static void keep_allowed(const specee_shaping & shaping, std::vector<llama_token_data> & tokens) {
    const size_t                  n_wanted = shaping.n_wanted > 0 ? shaping.n_wanted : tokens.size();
    std::vector<llama_token_data> allowed;
    for (size_t n = 32;; n *= 16) {
        n = std::min(n, tokens.size());
        if (n < tokens.size()) {
            std::nth_element(tokens.begin(), tokens.begin() + n - 1, tokens.end(), specee_is_greater);
        }
        const float least = tokens[n - 1].logit; // of those that are looked at, where others are left
        allowed.assign(tokens.begin(), tokens.begin() + n);
        shaping.grammar->forbid(allowed.data(), n);
        allowed.erase(
            std::remove_if(allowed.begin(), allowed.end(), [](const auto & token) { return std::isinf(token.logit); }),
            allowed.end());
        if (n == tokens.size()) {
            break;
        }
        if (!allowed.empty()) {
            const float best = std::min_element(allowed.begin(), allowed.end(), specee_is_greater)->logit;
            if (allowed.size() >= n_wanted || least < best + std::log(shaping.min_p)) {
                break;
            }
        }
    }
    if (allowed.empty()) {
        throw std::runtime_error("the grammar asks for a text that this vocabulary cannot write");
    }
    std::sort(allowed.begin(), allowed.end(), [](const auto & a, const auto & b) { return a.id < b.id; });
    tokens = std::move(allowed);
}

// The logits of a slot's row i that are shaped, into `sample_buffer`, in ascending order of their ids.
static int32_t take_logits(specee_rows * rows, llama_seq_id slot, int32_t i, const specee_shaping & shaping) {
    auto &     buffer    = rows->sample_buffer;
    const bool preselect = shaping.grammar == nullptr && shaping.preselect > 0 && shaping.preselect < rows->n_vocab;
    if (preselect && rows->greatest_logits(slot, i, shaping.preselect)) {
        std::sort(buffer.begin(), buffer.end(), [](const auto & a, const auto & b) { return a.id < b.id; });
        return SPECEE_OK;
    }
    const float * logits = rows->logits_of(slot, i);
    if (logits == nullptr) {
        return SPECEE_INVALID;
    }
    if (!are_numbers(logits, rows->n_vocab)) {
        throw std::runtime_error(SPECEE_NO_NUMBERS);
    }
    if (preselect) {
        select_greatest(logits, rows->n_vocab, shaping.preselect, rows->sample_heap, buffer);
    } else {
        buffer.resize(rows->n_vocab);
        for (int32_t j = 0; j < rows->n_vocab; ++j) {
            buffer[j] = { j, logits[j], 0.0f };
        }
    }
    return SPECEE_OK;
}

// What was taken.
static llama_token_data_array shape(specee_rows * rows, const specee_shaping & shaping) {
    auto &                 buffer = rows->sample_buffer;
    llama_token_data_array array  = { buffer.data(), buffer.size(), -1, false };
    if (shaping.logits != nullptr) {
        llama_sampler_apply(shaping.logits, &array);
    }
    if (shaping.grammar != nullptr) {
        keep_allowed(shaping, buffer);
        array = { buffer.data(), buffer.size(), -1, false };
    }
    if (shaping.filters != nullptr) {
        llama_sampler_apply(shaping.filters, &array);
    }
    if (std::none_of(array.data, array.data + array.size, [](const auto & t) { return t.logit > -INFINITY; })) {
        throw std::runtime_error("no token is allowed here");
    }
    return array;
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

const float * specee_rows_logits(specee_rows * rows, llama_seq_id slot, int32_t i) {
    return specee_guard(rows, (const float *) nullptr, [&] { return rows->logits_of(slot, i); });
}

int32_t specee_rows_greedy(specee_rows * rows, llama_seq_id slot, int32_t i, const specee_shaping * shaping,
                           llama_token * out) {
    return specee_entry(rows, [&] {
        if (!specee_given(out)) {
            return (int32_t) SPECEE_INVALID;
        }
        if (shaping == nullptr) {
            if (rows->greatest_logits(slot, i, 1)) {
                *out = rows->sample_buffer.front().id;
                return (int32_t) SPECEE_OK;
            }
            const float * logits = rows->logits_of(slot, i);
            if (logits == nullptr) {
                return (int32_t) SPECEE_INVALID;
            }
            const llama_token best = argmax(logits, rows->n_vocab);
            if (best >= rows->n_vocab) {
                throw std::runtime_error(SPECEE_NO_NUMBERS);
            }
            *out = best;
            return (int32_t) SPECEE_OK;
        }
        const int32_t status = take_logits(rows, slot, i, *shaping);
        if (status != SPECEE_OK) {
            return status;
        }
        const llama_token_data_array array = shape(rows, *shaping);
        *out = std::max_element(array.data, array.data + array.size, [](const auto & a, const auto & b) {
                   return a.logit < b.logit;
               })->id;
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_rows_distribution(specee_rows * rows, llama_seq_id slot, int32_t i, const specee_shaping * shaping,
                                 int32_t capacity, llama_token * tokens, float * probs) {
    return specee_entry(rows, [&] {
        if (shaping == nullptr || capacity < 1 || tokens == nullptr || probs == nullptr) {
            return specee_fail(SPECEE_INVALID, "a distribution needs a shaping and room");
        }
        const int32_t status = take_logits(rows, slot, i, *shaping);
        if (status != SPECEE_OK) {
            return status;
        }
        const llama_token_data_array array = shape(rows, *shaping);
        const auto                   n     = (int32_t) std::min<size_t>(array.size, capacity);
        std::partial_sort(array.data, array.data + n, array.data + array.size,
                          [](const auto & a, const auto & b) { return a.logit > b.logit; });
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

int32_t specee_sampler_accept(llama_sampler * sampler, llama_token token) {
    return specee_entry(sampler, [&] {
        llama_sampler_accept(sampler, token);
        return (int32_t) SPECEE_OK;
    });
}

int32_t specee_sampler_reset(llama_sampler * sampler) {
    return specee_entry(sampler, [&] {
        llama_sampler_reset(sampler);
        return (int32_t) SPECEE_OK;
    });
}

// What can be done with a model is tried when a context is opened, on a few tokens: no architecture is listed.
//
// Single tokens are decoded by llama.cpp itself. Then the same ones go whole and several at once, in the batches of
// several slots, and in ranges of layers; every logit must have the same bits. The LM head is read off the graph, and
// what the model's file then gives must be what the graph computed.
#include "proof.h"

#include "rows.h"

#include "llama-graph.h"
#include "llama-mmap.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

static constexpr int32_t N_ROWS     = 3;     // at once, behind a prompt of one token; on other devices see n_tried
static constexpr int32_t N_CUTS     = 8;     // at most, between layers
static constexpr int32_t N_COMPARED = 64;    // tokens whose logits are computed from the file
static constexpr float   ROUNDING   = 0.05f; // of their size: activations are rounded in the graph

static llama_token token_of(int32_t i, int32_t n_vocab) {
    return (7 + 31 * i) % n_vocab;
}

// A call that should succeed.
static void must(int32_t status) {
    if (status < 0) {
        throw std::runtime_error(specee_last_error());
    }
}

// Reasons are sentences about the model; an exception's text is one too. Memory is no property of a model.
template <typename F> static std::string reason_of(F && body) {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        throw;
    } catch (const std::exception & e) {
        return e.what();
    }
}

std::vector<int32_t> specee_rows::append_proof(llama_seq_id slot, int32_t first, int32_t n) {
    std::vector<int32_t> ids;
    for (int32_t i = first; i < first + n; ++i) {
        ids.push_back(append(slot, ids.empty() ? -1 : ids.back(), token_of(i, n_vocab)));
        must(ids.back());
    }
    return ids;
}

bool specee_rows::has_logits(llama_seq_id slot, int32_t i, int32_t token) {
    const float * found = logits_of(slot, i);
    return found != nullptr &&
           std::memcmp(found, proof_logits.data() + (size_t) token * n_vocab, n_vocab * sizeof(float)) == 0;
}

// On a CPU the kernels are the same for 2 to 8 rows. Other devices choose theirs by the number of rows, so each number
// is tried there, as far as the context has room; what fails lowers n_equal.
int32_t specee_rows::n_tried() const {
    return has_devices ? std::min({ n_equal, (int32_t) ctx.n_ctx_seq() - 1, n_rows_max }) : N_ROWS;
}

// Whether the proof's tokens from `first` on have their bits n at once. Those before are committed, and stay so.
bool specee_rows::has_bits_at_once(int32_t first, int32_t n) {
    const std::vector<int32_t> ids = append_proof(0, first, n);
    must(advance(ids.size(), ids.data(), n_layer, SPECEE_LOGITS));
    bool equal = true;
    for (int32_t i = 0; i < n; ++i) {
        equal = equal && has_logits(0, i, first + i);
    }
    must(roll_back(0, first));
    return equal;
}

std::string specee_rows::prove_whole_rows() {
    if ((int32_t) ctx.n_ctx_seq() <= N_ROWS || n_rows_max < N_ROWS) {
        return "its window is too small to try more";
    }
    const int32_t n_most = n_tried();
    for (int32_t i = 0; i <= n_most; ++i) {
        const llama_token token = token_of(i, n_vocab);
        must(prefill(0, 1, &token, true));
        const float * single = logits_of(0, 0);
        proof_logits.insert(proof_logits.end(), single, single + n_vocab);
    }
    // the last tokens
    const int32_t n_least = has_devices ? 2 : N_ROWS;
    int32_t       n_good  = n_most;
    for (int32_t n = n_least; n <= n_good; ++n) {
        const int32_t first = n_most - n + 1;
        if (roll_back(0, first) != SPECEE_OK) {
            return SPECEE_RECURRENT;
        }
        n_good = has_bits_at_once(first, n) ? n_good : n - 1;
    }
    // the first ones, as many as were equal: bits may differ for some tokens only, or at times
    must(roll_back(0, 1));
    while (has_devices && n_good >= n_least && !has_bits_at_once(1, n_good)) {
        --n_good;
    }
    if (n_good < n_least) {
        return "several of its tokens at once do not get the bits of single ones";
    }
    n_equal = has_devices ? n_good : n_equal;
    return has_bits_at_once(1, 1) ? "" : "its tokens do not get the same bits again after others were dropped";
}

std::string specee_rows::prove_slots() {
    const llama_token prompt = token_of(0, n_vocab);
    must(prefill(1, 1, &prompt, true));
    for (int32_t n = 1; n < n_tried(); ++n) { // alike, and not
        std::vector<int32_t>       ids   = append_proof(0, 1, 1);
        const std::vector<int32_t> other = append_proof(1, 1, n);
        ids.insert(ids.end(), other.begin(), other.end());
        must(advance(ids.size(), ids.data(), n_layer, SPECEE_LOGITS));
        bool equal = has_logits(0, 0, 1);
        for (int32_t i = 0; i < n; ++i) {
            equal = equal && has_logits(1, i, i + 1);
        }
        must(roll_back(0, 1));
        must(roll_back(1, 1));
        if (!equal && (n == 1 || !has_devices)) {
            return "tokens of several chats at once do not get the bits of single ones";
        }
        n_equal = equal ? n_equal : n;
    }
    return "";
}

bool specee_rows::has_bits_in_ranges(int32_t n) {
    const int32_t              n_cuts = std::min(n_layer - 1, N_CUTS);
    const std::vector<int32_t> ids    = append_proof(0, 1, n);
    for (int32_t i = 0; i < n_cuts; ++i) { // the first and the last one, and others evenly between them
        const int32_t end = n_cuts == 1 ? 1 : 1 + i * (n_layer - 2) / (n_cuts - 1);
        must(advance(ids.size(), ids.data(), end, 0));
    }
    must(advance(ids.size(), ids.data(), n_layer, SPECEE_LOGITS));
    bool equal = true;
    for (int32_t i = 0; i < n; ++i) {
        equal = equal && has_logits(0, i, i + 1);
    }
    must(roll_back(0, 1));
    return equal;
}

std::string specee_rows::prove_ranges() {
    while (!has_bits_in_ranges(n_tried())) {
        if (!has_devices || n_tried() == 2) {
            return "its layers one after the other do not give the bits that they give at once";
        }
        n_equal = n_tried() - 1;
    }
    if (n_layer > 1) {
        // of the last layer propagated K and V are those that it computes, and that is all that the next token sees
        const std::vector<int32_t> ids = append_proof(0, 1, 2);
        must(advance(1, ids.data(), n_layer - 1, 0));
        must(advance(1, ids.data(), n_layer, SPECEE_KV_ONLY));
        must(advance(1, ids.data() + 1, n_layer, SPECEE_LOGITS));
        const bool equal = has_logits(0, 0, 2);
        must(roll_back(0, 1));
        if (!equal) {
            return "its layers do not make K and V of their input alone";
        }
    }
    return "";
}

void specee_rows::read_head(const std::string & path, const specee_range_graph & graph) {
    specee_lm_head head;
    if (!specee_read_lm_head(graph.result->get_logits(), graph.in, head)) {
        throw std::runtime_error("its LM head is computed in a way that is not known here");
    }
    if (n_embd % 32 != 0) {
        throw std::runtime_error("its width is no multiple of 32");
    }
    token_matrices = std::make_unique<specee_token_matrices>(path, n_embd, n_vocab, head);
    exit_weights   = std::make_unique<specee_exit_weights>(*token_matrices, n_layer);
}

std::string specee_rows::prove_head(const std::string & path) {
    const std::vector<int32_t> ids = append_proof(0, 1, 1);
    must(advance(1, ids.data(), n_layer, SPECEE_LOGITS));
    specee_row & r = *find(ids[0]);
    must(lens_head(r));
    if (!has_logits(r.slot, 0, 1)) {
        return "its logits do not follow from the last layer's state alone";
    }
    read_head(path, range_graphs.front());

    std::vector<float> normed(n_embd), row(n_embd);
    token_matrices->normalise(hidden(r), normed.data());
    const float * expected = logits_of(r.slot, 0);
    const int32_t n        = std::min(n_vocab, N_COMPARED);
    double        error = 0, size = 0;
    for (int32_t i = 0; i < n; ++i) {
        const auto token = (llama_token) ((int64_t) i * n_vocab / n);
        double     logit = token_matrices->head_row(token, row.data());
        for (int32_t j = 0; j < n_embd; ++j) {
            logit += (double) normed[j] * row[j];
        }
        error += std::pow(token_matrices->capped((float) logit) - expected[token], 2);
        size += std::pow(expected[token], 2);
    }
    if (!(error <= ROUNDING * ROUNDING * size)) { // of no numbers too
        return "its LM head gives other logits than those of its file";
    }
    return "";
}

void specee_rows::prove(const std::string & path, int32_t proven, int32_t proven_rows,
                        const std::string & proven_limit) {
    const auto found = [&]() -> std::vector<llama_kv_cache *> {
        std::vector<llama_kv_cache *> all = specee_caches(ctx);
        for (const llama_kv_cache * cache : all) { // a row's cell must be its position, in all of them
            if (cache->get_n_stream() != ctx.n_seq_max() || cache->get_size() != all.front()->get_size()) {
                return {};
            }
        }
        return all;
    };
    const llama_file file(path.c_str(), "rb"); // one that cannot be read is no property of the model
    if (proven >= 0) {
        set_caches(proven > SPECEE_LEVEL_DENSE ? found() : std::vector<llama_kv_cache *>{});
        level   = proven;
        limit   = proven_limit;
        n_equal = std::clamp(proven_rows, 1, n_equal);
        if (level == SPECEE_LEVEL_EXITS) {
            specee_row none;
            hidden_in.assign(n_embd, 0.0f);
            must(compute_head(none, -1, false));
            read_head(path, range_graphs.front());
            drop_graphs();
        }
        return;
    }
    specee_scope_guard one_row([&] { n_equal = level >= SPECEE_LEVEL_DRAFTS ? n_equal : 1; });
    if (!ctx.cparams.causal_attn || ctx.get_memory() == nullptr) {
        limit = SPECEE_NOT_CAUSAL;
        return;
    }

    const size_t       n_graphs = std::exchange(graph_cache_max, 1); // none is needed twice
    specee_scope_guard forget([&] {
        drop_graphs();
        graph_cache_max = n_graphs;
        llama_memory_clear(ctx.get_memory(), false);
        for (specee_slot & s : slots) {
            s = {};
        }
        std::fill(places.begin(), places.end(), specee_row());
        logits_groups.clear();
        proof_logits = {};
        next_id      = 0;
        is_proving   = false;
    });
    is_proving = true;
    set_caches(found());
    level = SPECEE_LEVEL_DRAFTS;
    limit = reason_of([&] { return prove_whole_rows(); });
    if (limit.empty() && slots.size() > 1) {
        limit = reason_of([&] { return prove_slots(); });
    }
    if (!limit.empty()) {
        level = SPECEE_LEVEL_DENSE;
        set_caches({});
        return;
    }
    if (kv == nullptr) {
        limit = "its KV cache, or how its chats share one, is of another kind";
        return;
    }
    drop_graphs(); // which do not show the layers' ends
    level = SPECEE_LEVEL_RANGES;
    limit = reason_of([&] { return prove_ranges(); });
    if (!limit.empty()) {
        level = SPECEE_LEVEL_DRAFTS;
        return;
    }
    limit = reason_of([&] { return prove_head(path); });
    if (limit.empty()) {
        level = SPECEE_LEVEL_EXITS;
    } else {
        exit_weights.reset();
        token_matrices.reset();
    }
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_level(const specee_rows * rows) {
    return specee_entry(rows, [&] { return rows->level; });
}

int32_t specee_rows_max_equal(const specee_rows * rows) {
    return specee_entry(rows, [&] { return rows->n_equal; });
}

const char * specee_rows_limit(const specee_rows * rows) {
    return specee_guard(rows, "", [&] { return rows->limit.c_str(); });
}

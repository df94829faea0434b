// Rows through all layers at once, by llama_decode: prompts, and models that cannot run in ranges of layers.
#include "rows.h"

#include "llama-graph.h"

#include <algorithm>

static constexpr size_t SCHED_SPLIT_INPUTS = 30; // GGML_SCHED_MAX_SPLIT_INPUTS of ggml-backend.cpp

int32_t specee_rows::decode(const llama_pos * begins, const llama_token * toks, int32_t n_wanted) {
    const int32_t      n      = groups.back().first + groups.back().n_rows;
    llama_batch        batch_ = llama_batch_init(n, 0, 1);
    specee_scope_guard free_batch([&] { llama_batch_free(batch_); });
    batch_.n_tokens = n;
    for (size_t g = 0; g < groups.size(); ++g) {
        for (int32_t j = 0; j < groups[g].n_rows; ++j) {
            const int32_t i     = groups[g].first + j;
            batch_.token[i]     = toks[i];
            batch_.pos[i]       = begins[g] + j;
            batch_.n_seq_id[i]  = 1;
            batch_.seq_id[i][0] = groups[g].slot;
            batch_.logits[i]    = i >= n - n_wanted;
        }
    }
    const bool reserve = ctx.sched_need_reserve;
    // a failed batch may have been done in part: back to where it began
    const auto back = [&] {
        for (size_t g = 0; g < groups.size(); ++g) {
            llama_memory_seq_rm(ctx.get_memory(), groups[g].slot, begins[g], -1);
        }
    };
    bool               done   = false;
    int32_t            status = -1; // by an exception too
    specee_scope_guard remove([&] {
        decoding = false;
        // a scheduler that got no memory is never used again
        ctx.sched_need_reserve |= status < 0;
        if (status < 0) {
            tear_cells();
        }
        if (!done) {
            back();
        }
    });
    decoding = true;
    if (logits_owner == nullptr || n_wanted > 0) {
        logits_groups.clear(); // llama.cpp's own are written anew
    }
    mend_cells();
    need_memory(n, reserve);
    take_threads(n, kv != nullptr);
    status = ctx.decode(batch_);
    if (threads.has_stopped() && status != 0) {
        status = -1;
        back();
        take_threads(n, false);
        status = ctx.decode(batch_);
    }
    ctx.synchronize();
    if (status == 0 && cancelled.load(std::memory_order_relaxed)) { // a GPU does not ask meanwhile
        status = 2;
    }
    if (reserve) {
        drop_graphs();
    }
    switch (status) {
        case 0: break;
        case 1: return specee_fail(SPECEE_NO_SPACE, "the KV cache is full");
        case 2: return specee_fail(SPECEE_CANCELLED, "cancelled");
        default: return specee_fail(SPECEE_FAILED, "llama.cpp could not decode the batch");
    }
    if (n_wanted > 0) {
        logits       = ctx.get_logits_ith(n - n_wanted);
        logits_owner = nullptr;
        logits_groups.clear();
        for (const specee_group & group : groups) {
            const int32_t first = std::max(0, group.first - (n - n_wanted));
            logits_groups.push_back({ group.slot, first, std::min(group.n_rows, n_wanted), 0 });
        }
    }
    done = true;
    return SPECEE_OK;
}

// Graphs that are kept are given up for it.
void specee_rows::need_memory(int32_t n, bool new_scheduler) {
    // a graph's tensors, and in a scheduler two of each input of as many splits as there are nodes
    const size_t n_tensors = ctx.graph_max_nodes(n) * (new_scheduler ? 2 * SCHED_SPLIT_INPUTS + 4 : 4);
    while (true) {
        try {
            return specee_need_memory(n_tensors * (sizeof(ggml_tensor) + 4 * sizeof(int32_t)));
        } catch (const std::bad_alloc &) {
            const auto oldest = oldest_graph();
            if (oldest == range_graphs.end()) {
                throw;
            }
            range_graphs.erase(oldest);
        }
    }
}

int32_t specee_rows::prefill(llama_seq_id slot, int32_t n, const llama_token * toks, bool want_logits) {
    specee_slot * s = find_slot(slot);
    if (s == nullptr) {
        return SPECEE_INVALID;
    }
    if (s->n_in_flight() > 0) {
        return specee_fail(SPECEE_INVALID, "a prompt cannot follow rows in flight: commit or drop them first");
    }
    if (n <= 0 || n > (int32_t) ctx.n_batch()) {
        return specee_fail(SPECEE_INVALID, "a batch holds 1 to " + std::to_string(ctx.n_batch()) + " tokens");
    }
    if (!are_tokens(n, toks)) {
        return specee_fail(SPECEE_INVALID, "no such token");
    }
    if (n > (llama_pos) ctx.n_ctx_seq() - s->length) {
        return fail_window_full();
    }
    if (s->states != nullptr) {
        layer_out.reserve((size_t) n * n_embd); // what follows the computation does not throw
    }
    groups.assign(1, { slot, 0, n, 0 });
    const int32_t status = decode(&s->length, toks, want_logits);
    if (status != SPECEE_OK) {
        return status;
    }
    keep_prompt_states(*s, n);
    s->length += n;
    specee_row * r = want_logits ? new_row(slot, s->last, s->length - 1, toks[n - 1]) : nullptr;
    if (r != nullptr) {
        r->depth = n_layer;
        s->last  = r->id;
        // the last layer's rows were reduced to the one with logits
        auto found = last_outputs.find(ctx.gf_res_prev_active);
        if (level >= SPECEE_LEVEL_RANGES && found != last_outputs.end() && found->second != nullptr &&
            found->second->buffer != nullptr) {
            const ggml_tensor * t = found->second;
            ggml_backend_tensor_get(t, host_state(*r), (t->ne[1] - 1) * t->nb[1], n_embd * sizeof(float));
            r->layer = n_layer;
        }
    }
    return SPECEE_OK;
}

int32_t specee_rows::advance_whole(bool want_logits) {
    const auto n = (int32_t) batch.size();
    for (int32_t i = 0; i < n; ++i) {
        if (i > 0 && batch[i]->slot == batch[i - 1]->slot && batch[i]->pos < batch[i - 1]->pos) {
            return specee_fail(SPECEE_INVALID, "whole rows advance in order of position");
        }
        tokens[i] = batch[i]->token;
    }
    for (size_t g = 0; g < groups.size(); ++g) {
        pos[g] = batch[groups[g].first]->pos;
    }
    const int32_t status = decode(pos.data(), tokens.data(), want_logits ? n : 0);
    for (int32_t i = 0; status == SPECEE_OK && i < n; ++i) {
        batch[i]->depth = n_layer;
    }
    return status;
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_prefill(specee_rows * rows, llama_seq_id slot, int32_t n, const llama_token * tokens,
                            int32_t want_logits) {
    return specee_entry(rows, [&] { return rows->prefill(slot, n, tokens, want_logits != 0); });
}

// Rows through layers: in ranges by graphs of our own (segments.cpp), whole by llama_decode.
#include "rows.h"

#include "llama-graph.h"

#include <algorithm>

void specee_rows::take_threads(int32_t n, bool may_stop) {
    ctx.cparams.n_threads = ctx.cparams.n_threads_batch = threads.begin(n, may_stop);
}

// ---- whole rows ----------------------------------------------------------------------------------------------------

int32_t specee_rows::decode(llama_seq_id slot, llama_pos p, int32_t n, const llama_token * toks, int32_t n_wanted) {
    llama_batch    batch_ = llama_batch_init(n, 0, 1);
    specee_at_exit free_batch([&] { llama_batch_free(batch_); });
    batch_.n_tokens = n;
    for (int32_t i = 0; i < n; ++i) {
        batch_.token[i]     = toks[i];
        batch_.pos[i]       = p + i;
        batch_.n_seq_id[i]  = 1;
        batch_.seq_id[i][0] = slot;
        batch_.logits[i]    = i >= n - n_wanted;
    }
    const bool reserve = ctx.sched_need_reserve;
    // a failed batch may have been done in part: back to where it began
    bool           done = false;
    specee_at_exit remove([&] {
        decoding = false;
        if (!done) {
            llama_memory_seq_rm(ctx.get_memory(), slot, p, -1);
        }
    });
    decoding = true;
    if (logits_owner == nullptr) {
        n_logits = 0; // llama.cpp's own are written anew
    }
    take_threads(n, kv != nullptr);
    int32_t status = ctx.decode(batch_);
    if (threads.has_stopped() && status != 0) {
        llama_memory_seq_rm(ctx.get_memory(), slot, p, -1);
        take_threads(n, false);
        status = ctx.decode(batch_);
    }
    ctx.synchronize();
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
        n_logits     = n_wanted;
        logits_owner = nullptr;
    }
    done = true;
    return SPECEE_OK;
}

int32_t specee_rows::prefill(llama_seq_id slot, int32_t n, const llama_token * toks, bool want_logits) {
    specee_slot * s = find_slot(slot);
    if (s == nullptr) {
        return SPECEE_INVALID;
    }
    if (!s->in_flight.empty()) {
        return specee_fail(SPECEE_INVALID, "a prompt cannot follow rows in flight: commit or drop them first");
    }
    if (n <= 0 || n > (int32_t) ctx.n_batch()) {
        return specee_fail(SPECEE_INVALID, "a batch holds 1 to " + std::to_string(ctx.n_batch()) + " tokens");
    }
    if (!are_tokens(n, toks)) {
        return specee_fail(SPECEE_INVALID, "no such token");
    }
    if (n > (llama_pos) ctx.n_ctx_seq() - s->length) {
        return window_full();
    }
    const int32_t status = decode(slot, s->length, n, toks, want_logits);
    if (status != SPECEE_OK) {
        return status;
    }
    s->length += n;
    specee_row * r = want_logits ? new_row(slot, s->last, s->length - 1, toks[n - 1]) : nullptr;
    if (r != nullptr) {
        r->depth = n_layer;
        s->last  = r->id;
        // the last layer's rows were reduced to the one with logits
        auto tail = tails.find(ctx.gf_res_prev_active);
        if (kv != nullptr && tail != tails.end() && tail->second->buffer != nullptr) {
            const ggml_tensor * t = tail->second;
            ggml_backend_tensor_get(t, hidden(*r), (t->ne[1] - 1) * t->nb[1], n_embd * sizeof(float));
            r->layer = n_layer;
        }
    }
    return SPECEE_OK;
}

int32_t specee_rows::advance_whole(bool want_logits) {
    const auto n = (int32_t) batch.size();
    for (int32_t i = 0; i < n; ++i) {
        tokens[i] = batch[i]->token;
    }
    const int32_t status = decode(batch[0]->slot, batch[0]->pos, n, tokens.data(), want_logits ? n : 0);
    for (int32_t i = 0; status == SPECEE_OK && i < n; ++i) {
        batch[i]->depth = n_layer;
    }
    return status;
}

// ---- ranges of layers ----------------------------------------------------------------------------------------------

int32_t specee_rows::take_batch(int32_t n, const int32_t * ids) {
    if (n <= 0 || n > n_rows_max) {
        return specee_fail(SPECEE_INVALID, "a batch must have 1 to " + std::to_string(n_rows_max) + " rows");
    }
    batch.clear();
    for (int32_t i = 0; i < n; ++i) {
        specee_row * r = find(ids[i]);
        if (r == nullptr || !r->in_flight) {
            return specee_fail(SPECEE_INVALID, "no such row in flight");
        }
        if (i > 0 && (r->slot != batch[0]->slot || r->pos <= batch[i - 1]->pos || r->depth != batch[0]->depth)) {
            return specee_fail(SPECEE_INVALID,
                               "the rows of a batch must be of one slot and one depth, in order of position");
        }
        batch.push_back(r);
    }
    return SPECEE_OK;
}

bool specee_rows::ancestors_reach(int32_t end) const {
    const specee_slot & s       = slots[batch[0]->slot];
    const int32_t       n       = batch.back()->pos - s.length;
    size_t              i_batch = 0;
    for (int32_t i = 0; i < n; ++i) {
        const specee_row * r = find(s.in_flight[i]);
        if (r == batch[i_batch]) {
            ++i_batch;
        } else if (r->depth < end) {
            return false;
        }
    }
    return true;
}

int32_t specee_rows::advance(int32_t n, const int32_t * ids, int32_t end, uint32_t flags, bool want_scores) {
    const bool want_logits = (flags & SPECEE_LOGITS) != 0;
    const bool kv_only     = (flags & SPECEE_KV_ONLY) != 0;

    const int32_t valid = take_batch(n, ids);
    if (valid != SPECEE_OK) {
        return valid;
    }
    const int32_t begin  = batch[0]->depth;
    const bool    is_new = begin == 0;
    if ((flags & ~(uint32_t) (SPECEE_LOGITS | SPECEE_KV_ONLY)) != 0 || end <= 0 || end > n_layer ||
        (want_logits && (end != n_layer || kv_only)) || (is_new && kv_only)) {
        return specee_fail(SPECEE_INVALID, "no such range of layers");
    }
    if (end < begin || (end == begin && !want_logits)) {
        return specee_fail(SPECEE_INVALID, "the rows are that deep already");
    }
    // attention reads the K/V of every earlier row in each layer of the range
    if (end > begin && !kv_only && !ancestors_reach(end)) {
        return specee_fail(SPECEE_INVALID, "an earlier row is not that deep yet");
    }
    if (kv == nullptr) {
        return is_new && end == n_layer ? advance_whole(want_logits) : needs_ranges();
    }
    for (const specee_row * r : batch) {
        if (!is_new && r->layer != begin) {
            return specee_fail(SPECEE_INVALID, "a row has no hidden state at its depth: its K/V were propagated");
        }
    }

    if (ctx.sched_need_reserve || kv->get_has_shift()) {
        drop_graphs();
        ctx.sched_reserve();
        ctx.memory_update(false);
    }

    const llama_seq_id        slot = batch[0]->slot;
    llama_kv_cache::slot_info cells;
    if (is_new) {
        llama_ubatch wanted = {};
        wanted.n_tokens     = n;
        wanted.n_seqs_unq   = 1;
        seq_id[0]           = slot;
        wanted.seq_id_unq   = seq_id.data();
        cells               = kv->find_slot(wanted, false);
        if (cells.empty()) {
            return specee_fail(SPECEE_NO_SPACE, "the KV cache is full");
        }
    } else {
        cells.s0 = cells.s1 = kv->get_stream(slot);
        cells.resize(1);
        cells.strm[0] = cells.s0;
        hidden_in.resize((size_t) n * n_embd);
        for (int32_t i = 0; i < n; ++i) {
            cells.idxs[0].push_back(batch[i]->cell);
            std::copy_n(hidden(*batch[i]), n_embd, hidden_in.data() + (size_t) i * n_embd);
        }
    }

    bool             done = false;
    specee_at_exit   remove([&] {
        if (is_new && !done) {
            kv->seq_rm(slot, batch[0]->pos, -1);
        }
    });
    specee_segment & seg    = segment({ begin, end, n, want_logits, kv_only, want_scores });
    const int32_t    status = compute(seg, is_new, cells);
    if (status != SPECEE_OK) {
        return status;
    }
    if (seg.scores != nullptr) {
        short_logits.resize(seg.scores->ne[0]);
        ggml_backend_tensor_get(seg.scores, short_logits.data(), (n - 1) * seg.scores->nb[1],
                                seg.scores->ne[0] * sizeof(float));
    }
    if (want_logits) {
        keep_logits(seg);
    }
    for (int32_t i = 0; i < n; ++i) {
        specee_row & r = *batch[i];
        r.depth        = end;
        if (is_new) {
            r.cell = cells.idxs[0][i];
        }
        if (seg.out != nullptr) {
            ggml_backend_tensor_get(seg.out, hidden(r), i * seg.out->nb[1], n_embd * sizeof(float));
            r.layer = end;
        }
        if (seg.lens != nullptr) {
            ggml_backend_tensor_get(seg.lens, estimate(r), i * seg.lens->nb[1], n_embd * sizeof(float));
            r.lens_layer = end;
        }
    }
    done = true;
    return SPECEE_OK;
}

int32_t specee_rows::advance_deferred(const specee_slot & s, int32_t end, bool want_logits, bool want_scores) {
    while (true) {
        // the last rows of one depth that are not complete, and where the one before them stands
        int32_t depth = n_layer;
        int32_t stop  = end;
        batch_ids.clear();
        for (size_t i = s.in_flight.size(); i-- > 0;) {
            const specee_row & r = *find(s.in_flight[i]);
            if (r.depth == n_layer) {
                continue;
            }
            if (!batch_ids.empty() && r.depth != depth) {
                stop = std::min(end, r.depth);
                break;
            }
            depth = r.depth;
            batch_ids.push_back(r.id);
        }
        if (depth >= end) {
            return SPECEE_OK;
        }
        std::reverse(batch_ids.begin(), batch_ids.end());
        const uint32_t flags  = want_logits && stop == n_layer ? SPECEE_LOGITS : 0;
        const int32_t  status = advance(batch_ids.size(), batch_ids.data(), stop, flags, want_scores && stop == end);
        if (status != SPECEE_OK) {
            return status;
        }
    }
}

int32_t specee_rows::lens_head(specee_row & r) {
    const float * state = final_state(r);
    if (state == nullptr) {
        return specee_fail(SPECEE_INVALID, "this row has no final state and no lens at its layer");
    }
    hidden_in.assign(state, state + n_embd);
    batch.assign(1, &r);
    // an empty range at the end: only norm and head. No K/V is touched, any cell will do.
    llama_kv_cache::slot_info cells;
    cells.s0 = cells.s1 = kv->get_stream(r.slot);
    cells.resize(1);
    cells.strm[0] = cells.s0;
    cells.idxs[0].push_back(r.cell);
    specee_segment & seg    = segment({ n_layer, n_layer, 1, true, false, false });
    const int32_t    status = compute(seg, false, cells);
    if (status == SPECEE_OK) {
        keep_logits(seg);
    }
    return status;
}

#include "rows.h"

#include "llama-graph.h"

#include <algorithm>
#include <numeric>

static bool abort_requested(void * data) {
    auto * rows = static_cast<specee_rows *>(data);
    return rows->cancelled.load(std::memory_order_relaxed) || rows->threads.stop();
}

specee_rows::specee_rows(llama_context & ctx, llama_kv_cache * kv, int32_t n_rows_max, int32_t graph_cache_max) :
    ctx(ctx), model(ctx.get_model()), kv(kv), n_layer(model.hparams.n_layer()), n_embd(model.hparams.n_embd),
    n_vocab(model.vocab.n_tokens()), n_rows_max(n_rows_max), ring(512 + n_rows_max), graph_cache_max(graph_cache_max),
    seq_id(1, 0), seq_idx(LLAMA_MAX_SEQ, 0), threads(ctx.n_threads()) {
    tokens.resize(n_rows_max);
    pos.resize(n_rows_max);
    n_seq_id.assign(n_rows_max, 1);
    seq_ids.assign(n_rows_max, seq_id.data());
    output.assign(n_rows_max, 1);
    ctx.cparams.specee = this;
    ctx.set_abort_callback(abort_requested, this);
}

specee_rows::~specee_rows() {
    ctx.cparams.specee = nullptr;
    ctx.set_abort_callback(nullptr, nullptr);
}

void specee_rows::take_threads(int32_t n, bool may_stop) {
    ctx.cparams.n_threads = ctx.cparams.n_threads_batch = threads.begin(n, may_stop);
}

specee_sequence & specee_rows::sequence(llama_seq_id seq) {
    auto [it, is_new] = sequences.try_emplace(seq);
    if (is_new) {
        it->second.rows.resize(ring);
        it->second.hidden.resize((size_t) ring * n_embd);
        it->second.estimates.resize((size_t) ring * n_embd);
        it->second.probs.resize((size_t) ring * SPECEE_K_MAX);
    }
    return it->second;
}

const specee_sequence * specee_rows::find(llama_seq_id seq) const {
    auto it = sequences.find(seq);
    return it == sequences.end() ? nullptr : &it->second;
}

int32_t specee_rows::whole(llama_seq_id seq, llama_pos p, int32_t n, const llama_token * toks, int32_t n_wanted) {
    specee_sequence & s = sequence(seq);
    if (p != s.length || n <= 0) {
        return specee_fail(SPECEE_INVALID, "new rows must stand at the first free positions");
    }
    if (s.settled < s.length) {
        return specee_fail(SPECEE_INVALID, "whole rows while others are waiting to be settled");
    }
    if (n > (int32_t) ctx.n_batch()) {
        return specee_fail(SPECEE_INVALID, "more tokens than a batch holds");
    }
    llama_batch batch = llama_batch_init(n, 0, 1);
    batch.n_tokens    = n;
    for (int32_t i = 0; i < n; ++i) {
        batch.token[i]     = toks[i];
        batch.pos[i]       = p + i;
        batch.n_seq_id[i]  = 1;
        batch.seq_id[i][0] = seq;
        batch.logits[i]    = i >= n - n_wanted;
    }
    const bool reserve = ctx.sched_need_reserve;
    take_threads(n, kv != nullptr);
    int32_t status = ctx.decode(batch);
    if (threads.has_stopped() && status != 0) {
        llama_memory_seq_rm(ctx.get_memory(), seq, p, -1);
        take_threads(n, false);
        status = ctx.decode(batch);
    }
    llama_batch_free(batch);
    ctx.synchronize();
    if (reserve) {
        drop_graphs();
    }
    if (status != 0) {
        // a failed batch may have been done in part: back to where it began
        llama_memory_seq_rm(ctx.get_memory(), seq, p, -1);
        switch (status) {
            case -1: return specee_fail(SPECEE_INVALID, "no such token");
            case 1: return specee_fail(SPECEE_NO_SPACE, "the KV cache is full");
            case 2: return specee_fail(SPECEE_CANCELLED, "cancelled");
            default: return specee_fail(SPECEE_FAILED, "llama.cpp could not decode the batch");
        }
    }
    s.length = s.settled = p + n;
    for (llama_pos q = std::max(p, s.length - ring); q < s.length; ++q) {
        row(s, q)       = {};
        row(s, q).depth = n_layer;
    }
    if (n_wanted > 0) {
        logits       = ctx.get_logits_ith(n - n_wanted);
        n_logits     = n_wanted;
        logits_owner = nullptr;
        // the last layer's rows were reduced to those with logits
        auto tail = tails.find(ctx.gf_res_prev_active);
        if (kv != nullptr && tail != tails.end() && tail->second->buffer != nullptr) {
            ggml_tensor * t = tail->second;
            ggml_backend_tensor_get(t, hidden(s, s.length - 1), (t->ne[1] - 1) * t->nb[1], n_embd * sizeof(float));
            row(s, s.length - 1).layer = n_layer;
        }
    }
    return SPECEE_OK;
}

int32_t specee_rows::advance(llama_seq_id seq, int32_t n, const llama_pos * ps, const llama_token * toks, int32_t end,
                             uint32_t flags) {
    specee_sequence & s       = sequence(seq);
    const bool        logits_ = (flags & SPECEE_LOGITS) != 0;
    const bool        kv_only = (flags & SPECEE_KV_ONLY) != 0;
    const bool        scores  = (flags & SPECEE_SCORES) != 0;

    if (n <= 0 || n > n_rows_max) {
        return specee_fail(SPECEE_INVALID, "a batch must have 1 to " + std::to_string(n_rows_max) + " rows");
    }
    if (end <= 0 || end > n_layer || (logits_ && (end != n_layer || kv_only)) || (toks != nullptr && kv_only)) {
        return specee_fail(SPECEE_INVALID, "no such range of layers");
    }
    if (kv == nullptr) {
        if (toks == nullptr || end != n_layer) {
            return specee_fail(SPECEE_UNSUPPORTED, "this model runs whole rows only");
        }
        return whole(seq, ps[0], n, toks, logits_ ? n : 0);
    }
    for (int32_t i = 0; i < n; ++i) {
        const bool in_place = toks != nullptr ? ps[i] == s.length + i : kept(s, ps[i]) && (i == 0 || ps[i] > ps[i - 1]);
        if (!in_place) {
            return specee_fail(SPECEE_INVALID, toks != nullptr ? "new rows must stand at the first free positions"
                                                               : "a row is unknown or out of order");
        }
        if (toks != nullptr && (toks[i] < 0 || toks[i] >= n_vocab)) {
            return specee_fail(SPECEE_INVALID, "no such token");
        }
    }
    const int32_t begin = toks != nullptr ? 0 : row(s, ps[0]).depth;
    for (int32_t i = 0; toks == nullptr && i < n; ++i) {
        const auto & r = row(s, ps[i]);
        if (r.depth != begin || r.layer != begin) {
            return specee_fail(SPECEE_INVALID, "the rows of a batch must have one depth and their hidden states");
        }
    }
    if (end < begin || (end == begin && !logits_)) {
        return specee_fail(SPECEE_INVALID, "the rows are that deep already");
    }
    // attention reads the K/V of every earlier row in each layer of the range
    int32_t i_next = 0;
    for (llama_pos p = s.settled; p < ps[n - 1]; ++p) {
        if (i_next < n && p == ps[i_next]) {
            ++i_next;
        } else if (row(s, p).depth < end && end > begin && !kv_only) {
            return specee_fail(SPECEE_INVALID, "an earlier row is not that deep yet");
        }
    }

    if (ctx.sched_need_reserve || kv->get_has_shift()) {
        drop_graphs();
        ctx.sched_reserve();
        ctx.memory_update(false);
    }

    llama_kv_cache::slot_info slot;
    if (toks != nullptr) {
        llama_ubatch probe = {};
        probe.n_tokens     = n;
        probe.n_seqs_unq   = 1;
        seq_id[0]          = seq;
        probe.seq_id_unq   = seq_id.data();
        slot               = kv->find_slot(probe, false);
        if (slot.empty()) {
            return specee_fail(SPECEE_NO_SPACE, "the KV cache is full");
        }
    } else {
        const uint32_t stream = kv->get_stream(seq);
        slot.s0 = slot.s1 = stream;
        slot.resize(1);
        slot.strm[0] = stream;
        for (int32_t i = 0; i < n; ++i) {
            slot.idxs[0].push_back(row(s, ps[i]).cell);
        }
        hidden_in.resize((size_t) n * n_embd);
        for (int32_t i = 0; i < n; ++i) {
            std::copy_n(hidden(s, ps[i]), n_embd, hidden_in.data() + (size_t) i * n_embd);
        }
    }

    specee_segment & seg    = segment({ begin, end, n, logits_, kv_only, scores });
    const int32_t    status = compute(seg, seq, n, ps, toks, slot);
    if (status != SPECEE_OK) {
        if (toks != nullptr) {
            kv->seq_rm(seq, s.length, -1);
        }
        return status;
    }

    if (toks != nullptr) {
        for (int32_t i = 0; i < n; ++i) {
            row(s, s.length)      = {};
            row(s, s.length).cell = slot.idxs[0][i];
            s.length++;
        }
    }
    for (int32_t i = 0; i < n; ++i) {
        auto & r = row(s, ps[i]);
        r.depth  = end;
        if (seg.out != nullptr) {
            ggml_backend_tensor_get(seg.out, hidden(s, ps[i]), i * seg.out->nb[1], n_embd * sizeof(float));
            r.layer = end;
        }
        if (seg.lens != nullptr) {
            ggml_backend_tensor_get(seg.lens, estimate(s, ps[i]), i * seg.lens->nb[1], n_embd * sizeof(float));
            r.lens_layer = end;
        }
    }
    if (seg.scores != nullptr) {
        short_logits.resize(seg.scores->ne[0]);
        ggml_backend_tensor_get(seg.scores, short_logits.data(), (n - 1) * seg.scores->nb[1],
                                seg.scores->ne[0] * sizeof(float));
    }
    while (s.settled < s.length && row(s, s.settled).depth == n_layer) {
        s.settled++;
    }
    if (logits_) {
        keep_logits(seg);
    }
    return SPECEE_OK;
}

int32_t specee_rows::climb(llama_seq_id seq, llama_token token, int32_t end, bool want_scores) {
    specee_sequence & s      = sequence(seq);
    const auto        flags  = [&](int32_t stop) { return want_scores && stop == end ? SPECEE_SCORES : 0; };
    int32_t           status = SPECEE_OK;
    if (token >= 0) {
        const llama_pos p       = s.length;
        const bool      waiting = s.settled < s.length;
        if (p - s.settled >= n_rows_max) {
            return specee_fail(SPECEE_INVALID, "too many rows are waiting to be settled");
        }
        const int32_t stop = waiting ? std::min(end, row(s, p - 1).depth) : end;
        status             = advance(seq, 1, &p, &token, stop, flags(stop));
    }
    while (status == SPECEE_OK && s.settled < s.length && row(s, s.length - 1).depth < end) {
        const int32_t depth = row(s, s.length - 1).depth;
        llama_pos     first = s.length - 1;
        while (first > s.settled && row(s, first - 1).depth == depth) {
            --first;
        }
        const int32_t stop = first > s.settled ? std::min(end, row(s, first - 1).depth) : end;
        suffix.resize(s.length - first);
        std::iota(suffix.begin(), suffix.end(), first);
        status = advance(seq, suffix.size(), suffix.data(), nullptr, stop, flags(stop));
    }
    return status;
}

const float * specee_rows::final_state(specee_sequence & s, llama_pos p) {
    if (kv == nullptr || !kept(s, p) || row(s, p).layer < 0) {
        return nullptr;
    }
    const auto & r = row(s, p);
    return r.layer == n_layer ? hidden(s, p) : r.lens_layer == r.layer ? estimate(s, p) : nullptr;
}

int32_t specee_rows::lens_head(llama_seq_id seq, llama_pos p) {
    specee_sequence & s     = sequence(seq);
    const float *     state = final_state(s, p);
    if (state == nullptr) {
        return specee_fail(SPECEE_INVALID, "this row has no final state and no lens at its layer");
    }
    hidden_in.assign(state, state + n_embd);
    // an empty range at the end: only norm and head. No K/V is touched, any cell will do.
    llama_kv_cache::slot_info slot;
    slot.s0 = slot.s1 = kv->get_stream(seq);
    slot.resize(1);
    slot.strm[0] = slot.s0;
    slot.idxs[0].push_back(row(s, p).cell);
    specee_segment & seg    = segment({ n_layer, n_layer, 1, true, false, false });
    const int32_t    status = compute(seg, seq, 1, &p, nullptr, slot);
    if (status == SPECEE_OK) {
        keep_logits(seg);
    }
    return status;
}

int32_t specee_rows::roll_back(llama_seq_id seq, llama_pos p) {
    specee_sequence & s = sequence(seq);
    if (p < 0 || p > s.length) {
        return specee_fail(SPECEE_INVALID, "cannot roll back to a position beyond the end");
    }
    if (p < s.length && !llama_memory_seq_rm(ctx.get_memory(), seq, p, -1)) {
        return specee_fail(SPECEE_UNSUPPORTED, "this model's memory cannot go back to that position");
    }
    s.length  = p;
    s.settled = std::min(s.settled, p);
    return SPECEE_OK;
}

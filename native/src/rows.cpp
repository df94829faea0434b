#include "rows.h"

#include "hooks.h"

#include "llama-graph.h"
#include "llama-impl.h"

#include <algorithm>
#include <cstring>
#include <numeric>

// ---- call sites inside llama.cpp -----------------------------------------------------------------------------------

void specee_graph_begin(llm_graph_context & graph) {
    specee_rows * rows = graph.cparams.specee;
    if (rows == nullptr || rows->building == nullptr) {
        return;
    }
    specee_segment & seg = *rows->building;
    // the result was made with room for a second graph
    seg.scrap  = ggml_new_graph_custom(graph.ctx0, seg.result->get_max_nodes() / 2, false);
    seg.in     = nullptr;
    seg.out    = nullptr;
    seg.lens   = nullptr;
    seg.scores = nullptr;
    seg.n_seen = 0;
    if (seg.range.begin > 0) {
        graph.gf = seg.scrap;
    }
}

static ggml_tensor * new_row_input(const llm_graph_context & graph, int32_t n_rows) {
    ggml_tensor * in = ggml_new_tensor_2d(graph.ctx0, GGML_TYPE_F32, graph.n_embd, n_rows);
    ggml_set_name(in, "rows_in");
    ggml_set_input(in);
    return in;
}

// K/V only: of a layer's nodes, only the ones that write its K and V (and what these need) become part of the graph.
static void keep_kv_writes(specee_segment & seg, ggml_cgraph * gf) {
    const int n_nodes = ggml_graph_n_nodes(seg.scrap);
    for (; seg.n_seen < n_nodes; ++seg.n_seen) {
        ggml_tensor * node = ggml_graph_node(seg.scrap, seg.n_seen);
        if (node->op == GGML_OP_SET_ROWS) {
            ggml_build_forward_expand(gf, node);
        }
    }
}

static ggml_tensor * apply_lens(ggml_context * ctx0, const specee_lens & lens, ggml_tensor * hidden, float eps) {
    ggml_tensor * x = ggml_rms_norm(ctx0, hidden, eps);
    ggml_tensor * y = ggml_mul_mat(ctx0, lens.down, x);
    if (lens.up != nullptr) {
        y = ggml_mul_mat(ctx0, lens.up, y);
    }
    return ggml_add(ctx0, y, lens.bias);
}

ggml_tensor * specee_layer_end(const llm_graph_context & graph, ggml_tensor * cur, int il) {
    specee_rows * rows = graph.cparams.specee;
    if (rows == nullptr) {
        return cur;
    }
    const int done = il + 1;
    if (rows->building == nullptr) {
        // a plain decode: keep the last layer's output readable, drafts start from it
        if (done == rows->n_layer) {
            ggml_set_output(cur);
            rows->tails[graph.res] = cur;
        }
        return cur;
    }

    specee_segment &     seg = *rows->building;
    const specee_range & r   = seg.range;
    ggml_cgraph *        gf  = graph.res->get_gf();
    // graphs are built by a const method of an object that is not const
    ggml_cgraph *& graph_gf = const_cast<llm_graph_context &>(graph).gf;

    if (done == r.begin) {
        seg.in     = new_row_input(graph, r.n_rows);
        seg.n_seen = ggml_graph_n_nodes(seg.scrap);
        graph_gf   = r.kv_only ? seg.scrap : gf;
        return seg.in;
    }
    if (r.kv_only) {
        if (done > r.begin && done <= r.end) {
            keep_kv_writes(seg, gf);
        }
        return done > r.begin ? seg.in : cur;
    }
    if (done == r.end && r.begin < r.end) {
        seg.out = cur;
        ggml_set_output(cur);
        ggml_build_forward_expand(gf, cur);
        auto lens = rows->probe->lenses.find(r.end);
        if (lens != rows->probe->lenses.end()) {
            seg.lens = apply_lens(graph.ctx0, lens->second, cur, rows->head->eps);
            ggml_set_output(seg.lens);
            ggml_build_forward_expand(gf, seg.lens);
            if (r.scores) {
                ggml_tensor * normed = ggml_rms_norm(graph.ctx0, seg.lens, rows->head->eps);
                seg.scores           = ggml_mul_mat(graph.ctx0, rows->probe->shortlist.up, normed);
                ggml_set_output(seg.scores);
                ggml_build_forward_expand(gf, seg.scores);
            }
        }
        if (!r.logits) {
            graph_gf = seg.scrap;
        }
    }
    return cur;
}

bool specee_may(const specee_rows * rows, const char * what) {
    if (rows == nullptr) {
        return true;
    }
    for (const auto & [seq, s] : rows->sequences) {
        if (s.settled < s.length) {
            LLAMA_LOG_ERROR("%s: sequence %d has rows from position %d on whose layers are not all done\n", what, seq,
                            s.settled);
            return false;
        }
    }
    return true;
}

// ---- rows ----------------------------------------------------------------------------------------------------------

static bool abort_requested(void * data) {
    return static_cast<specee_rows *>(data)->cancelled.load(std::memory_order_relaxed);
}

specee_rows::specee_rows(llama_context & ctx, llama_kv_cache * kv, int32_t n_rows_max, int32_t graph_cache_max) :
    ctx(ctx), model(ctx.get_model()), kv(kv), n_layer(model.hparams.n_layer()), n_embd(model.hparams.n_embd),
    n_vocab(model.vocab.n_tokens()), n_rows_max(n_rows_max), ring(512 + n_rows_max), graph_cache_max(graph_cache_max),
    seq_id(1, 0), seq_idx(LLAMA_MAX_SEQ, 0) {
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

void specee_rows::drop_graphs() {
    if (logits_owner != nullptr) {
        logits       = nullptr;
        n_logits     = 0;
        logits_owner = nullptr;
    }
    segments.clear();
}

specee_segment & specee_rows::segment(const specee_range & range) {
    for (auto it = segments.begin(); it != segments.end(); ++it) {
        if (it->range == range) {
            segments.splice(segments.begin(), segments, it);
            return segments.front();
        }
    }
    while (segments.size() >= graph_cache_max) {
        auto last = std::prev(segments.end());
        if (&*last == logits_owner) { // its logits may still be read
            if (segments.size() == 1) {
                break;
            }
            --last;
        }
        segments.erase(last);
    }
    const size_t max_nodes = ctx.graph_max_nodes(range.n_rows);
    segments.emplace_front();
    specee_segment & seg = segments.front();
    seg.range            = range;
    seg.result.reset(new llm_graph_result(2 * max_nodes));
    seg.sched.reset(ggml_backend_sched_new(ctx.backend_ptrs.data(), ctx.backend_buft.data(), ctx.backend_ptrs.size(),
                                           max_nodes, false, ctx.cparams.op_offload));
    return seg;
}

bool specee_rows::build(specee_segment & seg, const llm_graph_params & params) {
    seg.built = false;
    seg.result->reset();
    ggml_backend_sched_reset(ctx.sched.get());
    ggml_backend_sched_set_eval_callback(ctx.sched.get(), ctx.cparams.cb_eval, ctx.cparams.cb_eval_user_data);

    building         = &seg;
    ggml_cgraph * gf = model.build_graph(params);
    building         = nullptr;
    if (gf == nullptr) {
        return false;
    }
    // inputs that this range does not use must be allocated all the same: they will be set
    ggml_context * ctx0 = seg.result->get_ctx();
    for (ggml_tensor * t = ggml_get_first_tensor(ctx0); t != nullptr; t = ggml_get_next_tensor(ctx0, t)) {
        if ((t->flags & GGML_TENSOR_FLAG_INPUT) != 0 && t->op == GGML_OP_NONE) {
            ggml_build_forward_expand(gf, t);
        }
    }
    seg.built = ggml_backend_sched_alloc_graph(ctx.sched.get(), gf);
    return seg.built;
}

int32_t specee_rows::compute(specee_segment & seg, llama_seq_id seq, int32_t n, const llama_pos * ps,
                             const llama_token * toks, const llama_kv_cache::slot_info & slot) {
    seq_id[0] = seq;
    std::copy_n(ps, n, pos.begin());
    if (toks != nullptr) {
        std::copy_n(toks, n, tokens.begin());
    }
    llama_ubatch ubatch = {};
    ubatch.n_tokens     = n;
    ubatch.n_seq_tokens = 1;
    ubatch.n_seqs       = n;
    ubatch.n_seqs_unq   = 1;
    ubatch.n_pos        = 1;
    ubatch.token        = toks != nullptr ? tokens.data() : nullptr;
    ubatch.pos          = pos.data();
    ubatch.n_seq_id     = n_seq_id.data();
    ubatch.seq_id       = seq_ids.data();
    ubatch.seq_id_unq   = seq_id.data();
    ubatch.seq_idx      = seq_idx.data();
    ubatch.output       = output.data();

    if (toks != nullptr) {
        kv->apply_ubatch(slot, ubatch);
    }
    llama_kv_cache_context memory(kv, { slot }, { ubatch });
    memory.n_kv = kv->get_n_kv(slot);

    ctx.n_outputs = n;
    std::swap(ctx.sched, seg.sched);
    const llm_graph_params params = ctx.graph_params(seg.result.get(), ubatch, &memory, LLM_GRAPH_TYPE_DEFAULT);

    ggml_status status = GGML_STATUS_ALLOC_FAILED;
    if ((seg.built && seg.result->can_reuse(params)) || build(seg, params)) {
        seg.result->set_inputs(&ubatch);
        if (seg.in != nullptr) {
            ggml_backend_tensor_set(seg.in, hidden_in.data(), 0, ggml_nbytes(seg.in));
        }
        status = ctx.graph_compute(seg.result->get_gf(), n > 1);
        ggml_backend_sched_synchronize(ctx.sched.get());
    }
    std::swap(ctx.sched, seg.sched);

    switch (status) {
        case GGML_STATUS_SUCCESS: return SPECEE_OK;
        case GGML_STATUS_ABORTED: return specee_fail(SPECEE_CANCELLED, "cancelled");
        case GGML_STATUS_ALLOC_FAILED: return specee_fail(SPECEE_FAILED, "no memory for the compute graph");
        default: return specee_fail(SPECEE_FAILED, "the backend could not compute the graph");
    }
}

void specee_rows::keep_logits(specee_segment & seg) {
    ggml_tensor * t = seg.result->get_logits();
    n_logits        = seg.range.n_rows;
    logits_owner    = &seg;
    if (ggml_backend_buffer_is_host(t->buffer)) {
        logits = static_cast<const float *>(t->data);
    } else {
        logits_host.resize((size_t) n_logits * n_vocab);
        ggml_backend_tensor_get(t, logits_host.data(), 0, ggml_nbytes(t));
        logits = logits_host.data();
    }
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
    const bool    reserve = ctx.sched_need_reserve;
    const int32_t status  = ctx.decode(batch);
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

// ---- C ABI ---------------------------------------------------------------------------------------------------------

// Architectures whose layer ends are proven by tests/native. Adding one: see native/README.md.
static bool is_supported(llm_arch arch) {
    switch (arch) {
        case LLM_ARCH_LLAMA:
        case LLM_ARCH_QWEN2: return true;
        default: return false;
    }
}

int32_t specee_model_supported(const llama_model * model) {
    if (!is_supported(model->arch)) {
        return specee_fail(SPECEE_UNSUPPORTED, std::string("the architecture '") + llm_arch_name(model->arch) +
                                                   "' does not run in layer ranges yet");
    }
    if (model->hparams.swa_type != LLAMA_SWA_TYPE_NONE) {
        return specee_fail(SPECEE_UNSUPPORTED, "sliding-window attention does not run in layer ranges yet");
    }
    if (model->hparams.n_embd % 32 != 0) {
        return specee_fail(SPECEE_UNSUPPORTED, "the model's width is not a multiple of 32");
    }
    return SPECEE_OK;
}

specee_rows * specee_rows_init(llama_context * ctx, const char * model_path, int32_t n_rows_max,
                               int32_t graph_cache_max) {
    if (ctx == nullptr || n_rows_max < 1 || graph_cache_max < 1) {
        specee_fail(SPECEE_INVALID, "a context, at least one row and one graph are needed");
        return nullptr;
    }
    // models that cannot run in layer ranges run whole rows, without exits
    const bool ranges = specee_model_supported(&ctx->get_model()) == SPECEE_OK;
    auto *     kv     = ranges ? dynamic_cast<llama_kv_cache *>(ctx->get_memory()) : nullptr;
    try {
        auto rows =
            std::make_unique<specee_rows>(*ctx, kv, std::min<int32_t>(n_rows_max, ctx->n_batch()), graph_cache_max);
        rows->head  = std::make_unique<specee_head>(kv != nullptr ? model_path : "", rows->n_embd, rows->n_vocab,
                                                    ctx->get_model().hparams.f_norm_rms_eps);
        rows->probe = std::make_unique<specee_probe>(*rows->head);
        return rows.release();
    } catch (const std::exception & e) {
        specee_fail(SPECEE_FAILED, e.what());
        return nullptr;
    }
}

void specee_rows_free(specee_rows * rows) {
    delete rows;
}

int32_t specee_rows_prefill(specee_rows * rows, llama_seq_id seq, llama_pos pos, int32_t n, const llama_token * tokens,
                            int32_t want_logits) {
    return rows->whole(seq, pos, n, tokens, want_logits != 0);
}

int32_t specee_rows_advance(specee_rows * rows, llama_seq_id seq, int32_t n, const llama_pos * pos,
                            const llama_token * tokens, int32_t end, uint32_t flags) {
    return rows->advance(seq, n, pos, tokens, end, flags);
}

int32_t specee_rows_lens_head(specee_rows * rows, llama_seq_id seq, llama_pos pos) {
    return rows->lens_head(seq, pos);
}

const float * specee_rows_logits(specee_rows * rows, int32_t i) {
    if (i < 0 || i >= rows->n_logits) {
        specee_fail(SPECEE_INVALID, "no such row of logits");
        return nullptr;
    }
    return rows->logits + (size_t) i * rows->n_vocab;
}

int32_t specee_rows_depth(const specee_rows * rows, llama_seq_id seq, llama_pos pos) {
    const specee_sequence * s = rows->find(seq);
    if (s == nullptr || pos < 0 || pos >= s->length) {
        return -1;
    }
    return pos < s->settled ? rows->n_layer : s->rows[pos % rows->ring].depth;
}

const float * specee_rows_hidden(const specee_rows * rows, llama_seq_id seq, llama_pos pos) {
    const specee_sequence * s = rows->find(seq);
    if (s == nullptr || !rows->kept(*s, pos) || s->rows[pos % rows->ring].layer < 0) {
        specee_fail(SPECEE_INVALID, "the hidden state of this row is not kept");
        return nullptr;
    }
    return s->hidden.data() + (size_t) (pos % rows->ring) * rows->n_embd;
}

int32_t specee_rows_roll_back(specee_rows * rows, llama_seq_id seq, llama_pos pos) {
    return rows->roll_back(seq, pos);
}

llama_pos specee_rows_length(const specee_rows * rows, llama_seq_id seq) {
    const specee_sequence * s = rows->find(seq);
    return s == nullptr ? 0 : s->length;
}

void specee_rows_cancel(specee_rows * rows) {
    rows->cancelled.store(true, std::memory_order_relaxed);
}

void specee_rows_resume(specee_rows * rows) {
    rows->cancelled.store(false, std::memory_order_relaxed);
}

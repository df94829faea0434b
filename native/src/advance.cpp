// Rows through ranges of layers, by graphs of our own (range_graphs.cpp).
#include "rows.h"

#include "llama-graph.h"

#include <algorithm>
#include <limits>

int32_t specee_rows::check_batch(int32_t n, const int32_t * ids) {
    if (!specee_given(ids)) {
        return SPECEE_INVALID;
    }
    if (n <= 0 || n > n_rows_max) {
        return specee_fail(SPECEE_INVALID, "a batch must have 1 to " + std::to_string(n_rows_max) + " rows");
    }
    batch.clear();
    groups.clear();
    ++n_batches;
    for (int32_t i = 0; i < n; ++i) {
        specee_row * r = find(ids[i]);
        if (r == nullptr || !r->in_flight) {
            return specee_fail(SPECEE_INVALID, "no such row in flight");
        }
        if (r->batch == n_batches) {
            return specee_fail(SPECEE_INVALID, "a row stands twice in the batch");
        }
        if (i > 0 && r->depth != batch[0]->depth) {
            return specee_fail(SPECEE_INVALID, "the rows of a batch must be of one depth");
        }
        r->batch = n_batches;
        // by slot, so that graphs are found again whatever the order of slots
        batch.insert(std::upper_bound(batch.begin(), batch.end(), r->slot,
                                      [](llama_seq_id slot, const specee_row * other) { return slot < other->slot; }),
                     r);
    }
    for (int32_t i = 0; i < n; ++i) {
        if (i == 0 || batch[i]->slot != batch[i - 1]->slot) {
            groups.push_back({ batch[i]->slot, i, 0, 0 });
        }
        ++groups.back().n_rows;
    }
    return SPECEE_OK;
}

bool specee_rows::ancestors_reach(int32_t end) const {
    for (const specee_row * r : batch) {
        // up to one in the batch, which is looked at itself
        const specee_row * above = parent_in_flight(*r);
        for (; above != nullptr && above->batch != n_batches; above = parent_in_flight(*above)) {
            if (above->depth < end) {
                return false;
            }
        }
    }
    return true;
}

void specee_rows::take_cells() {
    for (const specee_group & group : groups) {
        specee_slot & s = slots[group.slot];
        for (size_t i = 0; i < s.side.size(); ++i) {
            find(s.side[i])->cell = s.length + (int32_t) (s.chain.size() + i);
        }
        cells.s0 = cells.s1 = kv->get_stream(group.slot);
        cells.strm[0]       = cells.s0;
        cells.idxs[0].clear();
        for (int32_t i = group.first; i < group.first + group.n_rows; ++i) {
            const size_t at = cells.idxs[0].size();
            if (batch[i]->is_side) {
                s.side_done = true;
            } else {
                cells.idxs[0].push_back(batch[i]->cell);
                pos[at]    = batch[i]->pos;
                tokens[at] = batch[i]->token;
            }
        }
        if (!cells.idxs[0].empty()) {
            seq_id              = group.slot;
            llama_ubatch ubatch = {};
            ubatch.n_tokens     = cells.idxs[0].size();
            ubatch.n_pos        = 1;
            ubatch.token        = tokens.data();
            ubatch.pos          = pos.data();
            ubatch.n_seq_id     = n_seq_id.data();
            ubatch.seq_id       = seq_ids.data();
            for (llama_kv_cache * cache : caches) {
                cache->apply_ubatch(cells, ubatch);
            }
        }
    }
}

void specee_rows::tear_cells() {
    for (const specee_group & group : groups) {
        slots[group.slot].torn = kv != nullptr;
    }
}

void specee_rows::mend_cells() {
    for (const specee_group & group : groups) {
        specee_slot & s = slots[group.slot];
        if (!s.torn) {
            continue;
        }
        const auto is_new = [&](int32_t id) { return find(id)->depth == 0; };
        const auto n      = s.length + (std::find_if(s.chain.begin(), s.chain.end(), is_new) - s.chain.begin());
        for (llama_kv_cache * cache : caches) {
            llama_kv_cells & used = cache->v_cells[cache->get_stream(group.slot)];
            used.reset();
            for (llama_pos p = 0; p < (llama_pos) n; ++p) {
                used.pos_set(p, p);
                used.seq_add(p, group.slot);
            }
            cache->v_heads[cache->get_stream(group.slot)] = n;
        }
        s.torn = false;
    }
}

void specee_rows::leave_cells() {
    for (const specee_group & group : groups) {
        specee_slot & s     = slots[group.slot];
        llama_pos     begin = std::numeric_limits<llama_pos>::max();
        for (int32_t i = group.first; i < group.first + group.n_rows; ++i) {
            begin = batch[i]->is_side ? begin : std::min(begin, batch[i]->pos);
        }
        if (begin < std::numeric_limits<llama_pos>::max()) {
            for (llama_kv_cache * cache : caches) {
                cache->seq_rm(group.slot, begin, -1); // rows after new ones are new as well
            }
        }
        s.side_done = std::any_of(s.side.begin(), s.side.end(), [&](int32_t id) { return find(id)->depth > 0; });
    }
}

int32_t specee_rows::check_pass(specee_pass & pass, int32_t n, const int32_t * ids, int32_t end, uint32_t flags) {
    const bool want_logits = (flags & SPECEE_LOGITS) != 0;
    const bool kv_only     = (flags & SPECEE_KV_ONLY) != 0;

    const int32_t checked = check_batch(n, ids);
    if (checked != SPECEE_OK) {
        return checked;
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
    // attention reads the K/V of every ancestor in each layer of the range
    if (end > begin && !kv_only && !ancestors_reach(end)) {
        return specee_fail(SPECEE_INVALID, "an earlier row is not that deep yet");
    }
    if (level < SPECEE_LEVEL_RANGES && !(is_new && end == n_layer)) {
        return fail_level();
    }
    pass.range         = { begin, end, n, want_logits, kv_only, false };
    pass.range.selects = want_logits && selects;
    if (kv == nullptr) {
        return SPECEE_OK;
    }
    if (groups.size() > 1 && n > n_equal) {
        return specee_fail(SPECEE_INVALID, "more rows of several slots than have equal bits");
    }
    pass.range.source = !is_new && batch[0]->on_device ? device_of[begin - 1] : -1;
    for (const specee_row * r : batch) {
        if (r->is_side && !(is_new && end == n_layer)) {
            return specee_fail(SPECEE_UNSUPPORTED, "a side row goes through all layers at once");
        }
        if (!is_new && r->layer != begin) {
            return specee_fail(SPECEE_INVALID, "a row has no hidden state at its depth: its K/V were propagated");
        }
    }
    return SPECEE_OK;
}

void specee_rows::reserve_again(int32_t n) {
    const auto has_shift = [](const llama_kv_cache * cache) { return cache->get_has_shift(); };
    if (ctx.sched_need_reserve || std::any_of(caches.begin(), caches.end(), has_shift)) {
        drop_graphs();
        need_memory((int32_t) ctx.n_ubatch(), true);
        bool               reserved = false;
        specee_scope_guard again([&] { ctx.sched_need_reserve |= !reserved; });
        ctx.sched_reserve();
        ctx.memory_update(false);
        reserved = true;
    }
    layer_out.reserve((size_t) n * n_embd); // what follows the computation does not throw
}

int32_t specee_rows::begin_pass(specee_pass & pass) {
    mend_cells();
    pass.has_begun = pass.is_torn = true;
    if (pass.is_new()) {
        take_cells();
    } else if (pass.range.source < 0) {
        hidden_in.resize(batch.size() * n_embd);
        for (size_t i = 0; i < batch.size(); ++i) {
            std::copy_n(hidden(*batch[i]), n_embd, hidden_in.data() + i * n_embd);
        }
    }
    wants_estimate              = pass.wants_estimate;
    specee_range_graph & graph  = graph_of(pass.range);
    const int32_t        status = launch(graph);
    pass.graph                  = status == SPECEE_OK ? &graph : nullptr;
    pass.is_torn                = false;
    return status;
}

void specee_rows::read_pass(specee_pass & pass) {
    specee_range_graph & graph = *pass.graph;
    const auto           n     = (int32_t) batch.size();
    if (graph.scores.tensor != nullptr) {
        const float * last = graph.scores.row(n - 1);
        shortlist_logits.assign(last, last + graph.scores.tensor->ne[0]);
    }
    for (int32_t i = 0; i < n; ++i) {
        specee_row & r = *batch[i];
        r.depth        = pass.range.end;
        if (graph.out.tensor != nullptr) {
            r.layer     = pass.range.end;
            r.on_device = graph.out_at != nullptr;
            r.has_state = r.has_estimate = false;
            if (r.on_device) {
                r.turn = 1 - r.turn;
            } else {
                std::copy_n(graph.out.row(i), n_embd, host_state(r));
            }
        }
        if (graph.lens.tensor != nullptr) {
            r.lens_layer = pass.range.end;
            if (i >= graph.lens.first) {
                std::copy_n(graph.lens.row(i), n_embd, host_estimate(r));
                r.has_estimate = true;
            }
        }
    }
    keep_states(graph, pass.range.kv_only);
    pass.done = true;
}

void specee_rows::leave_pass(const specee_pass & pass) {
    if (!pass.is_new() || !pass.has_begun) {
        return;
    }
    if (pass.is_torn) {
        tear_cells();
    }
    if (!pass.done) {
        leave_cells();
    }
}

int32_t specee_rows::advance(int32_t n, const int32_t * ids, int32_t end, uint32_t flags, specee_read_last last) {
    specee_pass pass;
    int32_t     status = check_pass(pass, n, ids, end, flags);
    if (status != SPECEE_OK) {
        return status;
    }
    if (kv == nullptr) {
        return advance_whole(pass.range.logits);
    }
    pass.range.scores   = last == specee_read_last::scores;
    pass.wants_estimate = last == specee_read_last::estimate;
    reserve_again(n);
    specee_scope_guard leave([&] { leave_pass(pass); });
    status = begin_pass(pass);
    if (status == SPECEE_OK) {
        status = wait_for(*pass.graph);
    }
    if (status != SPECEE_OK) {
        return status;
    }
    if (pass.range.logits) {
        keep_logits(*pass.graph);
    }
    read_pass(pass);
    return SPECEE_OK;
}

int32_t specee_rows::advance_deferred(const specee_slot & s, int32_t end, bool want_logits, specee_read_last last) {
    while (true) {
        // the last rows of one depth that are not complete, and where the one before them stands
        int32_t depth = n_layer;
        int32_t stop  = end;
        batch_ids.clear();
        for (size_t i = s.chain.size(); i-- > 0;) {
            const specee_row & r = *find(s.chain[i]);
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
        const uint32_t flags = want_logits && stop == n_layer ? SPECEE_LOGITS : 0;
        const int32_t  status =
            advance(batch_ids.size(), batch_ids.data(), stop, flags, stop == end ? last : specee_read_last::nothing);
        if (status != SPECEE_OK) {
            return status;
        }
    }
}

int32_t specee_rows::compute_head(specee_row & r, int32_t source, bool by_lens) {
    batch.assign(1, &r);
    groups.assign(1, { r.slot, 0, 1, 0 });
    // an empty range at the end: only norm and head, no K/V
    specee_range_graph & graph  = graph_of({ n_layer, n_layer, 1, true, false, false, source, by_lens, selects });
    int32_t              status = launch(graph);
    if (status == SPECEE_OK) {
        status = wait_for(graph);
    }
    if (status == SPECEE_OK) {
        keep_logits(graph);
    }
    return status;
}

int32_t specee_rows::lens_head(specee_row & r) {
    if (!has_final_state(r)) {
        return specee_fail(SPECEE_INVALID, "this row has no final state and no lens at its layer");
    }
    if (r.on_device) {
        return compute_head(r, device_of[r.layer - 1], r.layer < n_layer);
    }
    const float * state = final_state(r);
    hidden_in.assign(state, state + n_embd);
    return compute_head(r, -1, false);
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_advance(specee_rows * rows, int32_t n, const int32_t * ids, int32_t end, uint32_t flags) {
    return specee_entry(rows, [&] { return rows->advance(n, ids, end, flags); });
}

int32_t specee_rows_complete(specee_rows * rows, llama_seq_id slot, uint32_t flags) {
    return specee_entry(rows, [&] {
        const specee_slot * s = rows->find_slot(slot);
        if (s == nullptr || (flags & ~(uint32_t) SPECEE_LOGITS) != 0) {
            return specee_fail(SPECEE_INVALID, "no such slot, or no such flag");
        }
        return rows->advance_deferred(*s, rows->n_layer, (flags & SPECEE_LOGITS) != 0);
    });
}

int32_t specee_rows_lens_head(specee_rows * rows, int32_t id) {
    return specee_entry(rows, [&] {
        if (rows->level < SPECEE_LEVEL_EXITS) {
            return rows->fail_level();
        }
        specee_row * r = rows->find(id);
        return r == nullptr ? specee_fail(SPECEE_INVALID, "no such row") : rows->lens_head(*r);
    });
}

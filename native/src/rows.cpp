// Which rows there are: appended, committed, dropped.
#include "rows.h"

#include <algorithm>

static constexpr int32_t N_HISTORY = 512; // committed rows that are kept, at least while few are in flight

static bool abort_requested(void * data) {
    auto * rows = static_cast<specee_rows *>(data);
    return rows->cancelled.load(std::memory_order_relaxed) || rows->threads.stop();
}

specee_rows::specee_rows(llama_context & ctx, int32_t n_rows_max, int32_t graph_cache_max) :
    ctx(ctx), model(ctx.get_model()), n_layer(model.hparams.n_layer()), n_embd(model.hparams.n_embd),
    n_vocab(model.vocab.n_tokens()), n_rows_max(n_rows_max),
    n_kept((N_HISTORY + n_rows_max) * (int32_t) ctx.cparams.n_seq_max), graph_cache_max(graph_cache_max),
    slots(ctx.cparams.n_seq_max), places(n_kept), states((size_t) n_kept * n_embd), estimates((size_t) n_kept * n_embd),
    probs((size_t) n_kept * SPECEE_K_MAX), seq_idx(LLAMA_MAX_SEQ, 0), threads(ctx.n_threads()) {
    batch.reserve(n_rows_max);
    batch_ids.reserve(n_rows_max);
    tokens.resize(n_rows_max);
    pos.resize(n_rows_max);
    n_seq_id.assign(n_rows_max, 1);
    seq_ids.assign(n_rows_max, &seq_id);
    output.assign(n_rows_max, 1);
    groups.reserve(slots.size());
    cells.resize(1);
    cells.strm[0] = 0;
    cells.idxs[0].reserve(n_rows_max);
    cells.idxs[0].assign(1, 0);
    find_devices();
    select_on_devices(0);
    ctx.cparams.specee = this;
    ctx.set_abort_callback(abort_requested, this);
}

specee_rows::~specee_rows() {
    ctx.cparams.specee = nullptr;
    ctx.set_abort_callback(nullptr, nullptr);
}

const specee_slot * specee_rows::find_slot(llama_seq_id slot) const {
    if (slot < 0 || slot >= (llama_seq_id) slots.size()) {
        specee_fail(SPECEE_INVALID, "there is no slot " + std::to_string(slot));
        return nullptr;
    }
    return &slots[slot];
}

specee_slot * specee_rows::find_slot(llama_seq_id slot) {
    return const_cast<specee_slot *>(std::as_const(*this).find_slot(slot));
}

bool specee_rows::has_final_state(const specee_row & r) const {
    return r.layer >= 0 && (r.layer == n_layer || r.lens_layer == r.layer);
}

const float * specee_rows::final_state(specee_row & r) {
    return !has_final_state(r) ? nullptr : r.layer == n_layer ? hidden(r) : estimate(r);
}

bool specee_rows::are_tokens(int32_t n, const llama_token * toks) const {
    return n >= 0 && toks != nullptr &&
           std::all_of(toks, toks + n, [&](llama_token t) { return t >= 0 && t < n_vocab; });
}

int32_t specee_rows::fail_level() const {
    return specee_fail(SPECEE_UNSUPPORTED, "this model does not do that: " + limit);
}

int32_t specee_rows::fail_window_full() const {
    return specee_fail(SPECEE_NO_SPACE, "the window of " + std::to_string(ctx.n_ctx_seq()) + " tokens is full");
}

specee_row * specee_rows::new_row(llama_seq_id slot, int32_t parent, llama_pos p, llama_token token) {
    for (int32_t tries = 0; tries < n_kept && next_id <= INT32_MAX; ++tries) {
        const auto   id = (int32_t) next_id++;
        specee_row & r  = places[id % n_kept];
        // of another slot, maybe, whose rows and whose tip stay while it is idle
        if (!r.in_flight && (r.id < 0 || r.slot == slot || slots[r.slot].last != r.id)) {
            r        = {};
            r.id     = id;
            r.parent = parent;
            r.slot   = slot;
            r.pos    = p;
            r.cell   = p;
            r.token  = token;
            return &r;
        }
    }
    return nullptr;
}

int32_t specee_rows::append(llama_seq_id slot, int32_t parent, llama_token token) {
    specee_slot * s = find_slot(slot);
    if (s == nullptr) {
        return SPECEE_INVALID;
    }
    if (!are_tokens(1, &token)) {
        return specee_fail(SPECEE_INVALID, "no such token");
    }
    const specee_row * before = find(parent);
    if (before != nullptr && before->id == s->last && before->pos == s->length - 1) {
        parent = -1;
    } else if (parent != -1 && (before == nullptr || !before->in_flight || before->slot != slot)) {
        return specee_fail(SPECEE_INVALID, "the parent is no row in flight of this slot");
    }
    const bool is_side = parent != (s->chain.empty() ? -1 : s->chain.back());
    if (is_side && kv == nullptr) {
        return specee_fail(SPECEE_UNSUPPORTED, "this model's rows are no tree: llama.cpp runs them whole");
    }
    if (s->side_done) {
        return specee_fail(SPECEE_UNSUPPORTED, "a tree that was computed takes no more rows: commit or roll back");
    }
    if (s->n_in_flight() >= n_rows_max) {
        return specee_fail(SPECEE_INVALID, "too many rows are in flight");
    }
    if (s->length + s->n_in_flight() >= (llama_pos) ctx.n_ctx_seq()) { // each row takes a cell
        return fail_window_full();
    }
    std::vector<int32_t> & list = is_side ? s->side : s->chain;
    list.reserve(list.size() + 1); // what follows does not throw
    const llama_pos p = parent == -1 ? s->length : before->pos + 1;
    specee_row *    r = new_row(slot, parent == -1 ? s->last : parent, p, token);
    if (r == nullptr) {
        return specee_fail(SPECEE_NO_SPACE, "no more rows fit into this context");
    }
    r->in_flight = true;
    r->is_side   = is_side;
    list.push_back(r->id);
    return r->id;
}

bool specee_rows::free_from(const specee_slot & s, llama_pos p) {
    const auto first   = s.chain.begin() + std::max(0, p - s.length);
    const bool written = std::any_of(first, s.chain.end(), [&](int32_t id) { return find(id)->depth > 0; });
    const auto slot    = (llama_seq_id) (&s - slots.data());
    return (!written && p >= s.length) || llama_memory_seq_rm(ctx.get_memory(), slot, p, -1);
}

void specee_rows::drop_from(specee_slot & s, size_t n) {
    for (size_t i = n; i < s.chain.size(); ++i) {
        *find(s.chain[i]) = {};
    }
    for (const int32_t id : s.side) {
        *find(id) = {};
    }
    s.chain.resize(n);
    s.side.clear();
    s.side_done = false;
}

int32_t specee_rows::commit(int32_t id, bool keep_rest) {
    const specee_row * r = find(id);
    if (r == nullptr || !r->in_flight) {
        return specee_fail(SPECEE_INVALID, "no such row in flight");
    }
    if (r->is_side) {
        return specee_fail(SPECEE_UNSUPPORTED, "a side row is not committed: append its token again, and recompute it");
    }
    specee_slot & s = slots[r->slot];
    const size_t  n = r->pos - s.length + 1;
    if (keep_rest && !s.side.empty()) {
        return specee_fail(SPECEE_UNSUPPORTED, "side rows do not stay in flight");
    }
    for (size_t i = 0; i < n; ++i) {
        if (find(s.chain[i])->depth < n_layer) {
            return specee_fail(SPECEE_INVALID, "a row with deferred layers cannot be committed: complete it first");
        }
    }
    if (!keep_rest) {
        if (!free_from(s, s.length + (llama_pos) n)) {
            return specee_fail(SPECEE_UNSUPPORTED, "this model's memory cannot drop the rows after that one");
        }
        drop_from(s, n);
    }
    for (size_t i = 0; i < n; ++i) {
        specee_row & committed = *find(s.chain[i]);
        committed.in_flight    = false;
        s.n_states += s.n_states == committed.pos && s.states != nullptr && !committed.no_states;
    }
    s.chain.erase(s.chain.begin(), s.chain.begin() + n);
    s.length += (llama_pos) n;
    s.last = id;
    return SPECEE_OK;
}

int32_t specee_rows::roll_back(llama_seq_id slot, llama_pos length) {
    specee_slot * s = find_slot(slot);
    if (s == nullptr) {
        return SPECEE_INVALID;
    }
    if (length < 0 || length > s->length) {
        return specee_fail(SPECEE_INVALID, "cannot roll back to a position beyond the end");
    }
    if (!free_from(*s, length)) {
        return specee_fail(SPECEE_UNSUPPORTED, "this model's memory cannot go back to that position");
    }
    drop_from(*s, 0);
    for (specee_row * r = find(s->last); r != nullptr && r->pos >= length; r = find(s->last)) {
        s->last = r->parent;
        *r      = {};
    }
    s->length   = length;
    s->n_states = std::min(s->n_states, length);
    return SPECEE_OK;
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

specee_rows * specee_rows_init(llama_context * ctx, const char * model_path, int32_t n_rows_max,
                               int32_t graph_cache_max, int32_t proven, int32_t proven_rows, const char * limit) {
    return specee_guard((specee_rows *) nullptr, [&]() -> specee_rows * {
        if (ctx == nullptr || model_path == nullptr || n_rows_max < 1 || graph_cache_max < 1) {
            specee_fail(SPECEE_INVALID, "a context, a file, at least one row and one graph are needed");
            return nullptr;
        }
        auto rows = std::make_unique<specee_rows>(*ctx, std::min<int32_t>(n_rows_max, ctx->n_batch()), graph_cache_max);
        rows->prove(model_path, proven, proven_rows, limit == nullptr ? "" : limit);
        return rows.release();
    });
}

void specee_rows_free(specee_rows * rows) {
    delete rows;
}

int32_t specee_rows_append(specee_rows * rows, llama_seq_id slot, int32_t parent, llama_token token) {
    return specee_entry(rows, [&] { return rows->append(slot, parent, token); });
}

int32_t specee_rows_commit(specee_rows * rows, int32_t id) {
    return specee_entry(rows, [&] { return rows->commit(id, false); });
}

int32_t specee_rows_commit_first(specee_rows * rows, int32_t id) {
    return specee_entry(rows, [&] { return rows->commit(id, true); });
}

int32_t specee_rows_forward(specee_rows * rows, llama_seq_id slot, llama_token token) {
    return specee_entry(rows, [&] {
        const specee_slot * s = rows->find_slot(slot);
        if (s != nullptr && s->n_in_flight() > 0) {
            return specee_fail(SPECEE_UNSUPPORTED, "a token is not decoded while rows are in flight");
        }
        const int32_t id = rows->append(slot, -1, token);
        if (id < 0) {
            return id;
        }
        int32_t            status = SPECEE_FAILED; // by an exception too
        specee_scope_guard drop([&] {
            if (status != SPECEE_OK) {
                rows->roll_back(slot, s->length);
            }
        });
        status = rows->advance(1, &id, rows->n_layer, SPECEE_LOGITS);
        if (status == SPECEE_OK) {
            status = rows->commit(id, false);
        }
        return status == SPECEE_OK ? id : status;
    });
}

int32_t specee_rows_roll_back(specee_rows * rows, llama_seq_id slot, llama_pos length) {
    return specee_entry(rows, [&] { return rows->roll_back(slot, length); });
}

llama_pos specee_rows_length(const specee_rows * rows, llama_seq_id slot) {
    return specee_entry(rows, [&] {
        const specee_slot * s = rows->find_slot(slot);
        return s == nullptr ? (llama_pos) SPECEE_INVALID : s->length;
    });
}

int32_t specee_rows_in_flight(const specee_rows * rows, llama_seq_id slot) {
    return specee_entry(rows, [&] {
        const specee_slot * s = rows->find_slot(slot);
        return s == nullptr ? (int32_t) SPECEE_INVALID : s->n_in_flight();
    });
}

int32_t specee_rows_tip(const specee_rows * rows, llama_seq_id slot) {
    return specee_guard(rows, (int32_t) -1, [&] {
        const specee_slot * s = rows->find_slot(slot);
        const specee_row *  r = s == nullptr ? nullptr : rows->find(s->last);
        return r != nullptr && r->pos == s->length - 1 ? r->id : -1;
    });
}

int32_t specee_rows_depth(const specee_rows * rows, int32_t id) {
    return specee_guard(rows, (int32_t) -1, [&] {
        const specee_row * r = rows->find(id);
        return r == nullptr ? specee_fail(-1, "no such row") : r->depth;
    });
}

const float * specee_rows_hidden(const specee_rows * rows, int32_t id) {
    return specee_guard(rows, (const float *) nullptr, [&]() -> const float * {
        const specee_row * r = rows->find(id);
        if (r == nullptr || r->layer < 0) {
            specee_fail(SPECEE_INVALID, "the hidden state of this row is not kept");
            return nullptr;
        }
        // nothing of a row changes but what the host knows of it
        specee_rows * mutable_rows = const_cast<specee_rows *>(rows);
        return mutable_rows->hidden(*mutable_rows->find(id));
    });
}

void specee_rows_cancel(specee_rows * rows) {
    if (rows != nullptr) {
        rows->cancelled.store(true, std::memory_order_relaxed);
    }
}

void specee_rows_resume(specee_rows * rows) {
    if (rows != nullptr) {
        rows->cancelled.store(false, std::memory_order_relaxed);
    }
}

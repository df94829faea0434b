// Attention of a batch of rows: each slot has K and V of its own, and each row sees its ancestors.
//
// The products with weights run over all rows together. Attention runs for each slot over as many cells as it would if
// the slot were alone, so that a row's bits do not depend on what runs beside it; slots that are alike share one
// product of each kind, which saves the threads' waiting for each other. The masks of the slots lie one after the other
// in the mask that llama.cpp makes for the whole batch, which is never smaller.
#include "small_batch/attention.h"
#include "hooks.h"
#include "rows.h"

#include "llama-graph.h"
#include "llama-kv-cache-iswa.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <type_traits>

static constexpr int32_t KV_PADDING = 256; // as in llama_kv_cache::get_n_kv

// ---- caches --------------------------------------------------------------------------------------------------------

std::vector<llama_kv_cache *> specee_caches(const llama_context & ctx) {
    llama_memory_t memory = ctx.get_memory();
    if (auto * kv = dynamic_cast<llama_kv_cache *>(memory)) {
        return { kv };
    }
    if (auto * both = dynamic_cast<llama_kv_cache_iswa *>(memory)) {
        return { both->get_base(), both->get_swa() };
    }
    return {};
}

void specee_rows::set_caches(const std::vector<llama_kv_cache *> & found) {
    caches = found;
    kv     = caches.empty() ? nullptr : caches.front();
    views.clear();
    memory.reset();
    if (kv == nullptr) {
        return;
    }
    const llama_kv_cache::slot_info_vec_t at{ cells };
    if (caches.size() == 1) {
        auto view = std::make_unique<llama_kv_cache_context>(kv, at, std::vector<llama_ubatch>{ {} });
        views     = { view.get() };
        memory    = std::move(view);
    } else {
        auto both = std::make_unique<llama_kv_cache_iswa_context>(static_cast<llama_kv_cache_iswa *>(ctx.get_memory()),
                                                                  at, at, std::vector<llama_ubatch>{ {} });
        views     = { const_cast<llama_kv_cache_context *>(both->get_base()),
                      const_cast<llama_kv_cache_context *>(both->get_swa()) };
        memory    = std::move(both);
    }
}

llama_pos specee_rows::first_seen(const llama_kv_cache & cache, llama_pos p1, llama_pos end) {
    llama_pos begin = 0;
    for (llama_pos n = end; n > 0;) { // of earlier ones more are hidden
        const llama_pos half = n / 2;
        const bool      sees = !llama_hparams::is_masked_swa(cache.n_swa, cache.swa_type, begin + half, p1);
        begin += sees ? 0 : half + 1;
        n = sees ? half : n - half - 1;
    }
    return begin;
}

void specee_rows::set_extents() {
    int32_t most = 0;
    for (specee_group & group : groups) {
        const specee_slot & s = slots[group.slot];
        const int32_t       n = s.length + s.n_in_flight(); // no cell beyond is in use
        group.n_kv            = std::min<int32_t>(GGML_PAD(n, KV_PADDING), kv->get_size());
        group.window          = 0;
        most                  = std::max(most, group.n_kv);
        // cells that no row sees add nothing, in whole steps of what is added in one instruction
        if (caches.size() > 1 && !ctx.cparams.flash_attn) {
            llama_pos first = batch[group.first]->pos;
            for (int32_t i = group.first; i < group.first + group.n_rows; ++i) {
                first = std::min(first, batch[i]->pos);
            }
            group.window = first_seen(*caches[1], first, first) / KV_PADDING * KV_PADDING;
        }
    }
    for (llama_kv_cache_context * view : views) {
        llama_kv_cache::slot_info & first = view->sinfos[0];
        first.s0 = first.s1 = kv->get_stream(groups[0].slot);
        first.strm[0]       = first.s0;
        view->n_kv          = most;
    }
}

// ---- inputs --------------------------------------------------------------------------------------------------------

template <typename T> void specee_rows::set_mask(const llama_kv_cache & cache, T * mask) const {
    const auto value = [](float x) {
        if constexpr (std::is_same_v<T, float>) {
            return x;
        } else {
            return ggml_fp32_to_fp16(x);
        }
    };
    const T    hidden = value(-INFINITY);
    const bool alibi  = model.hparams.use_alibi;
    // what a row at p1 sees of position p0
    const auto seen = [&](llama_pos p0, llama_pos p1) { return value(alibi ? (float) (p0 - p1) : 0.0f); };
    for (const specee_group & group : groups) {
        const specee_slot & s       = slots[group.slot];
        const int32_t       from    = &cache == kv ? 0 : group.window;
        const int32_t       n_cells = group.n_kv - from;
        for (int32_t i = group.first; i < group.first + group.n_rows; ++i, mask += n_cells) {
            // side rows up to the principal chain, then all before
            const specee_row * r  = batch[i];
            const llama_pos    p1 = r->pos;
            std::fill_n(mask, n_cells, hidden);
            for (; r != nullptr && r->is_side; r = parent_in_flight(*r)) {
                if (!llama_hparams::is_masked_swa(cache.n_swa, cache.swa_type, r->pos, p1)) {
                    mask[r->cell - from] = seen(r->pos, p1);
                }
            }
            const llama_pos end   = r == nullptr ? s.length : r->pos + 1;
            const llama_pos begin = cache.swa_type == LLAMA_SWA_TYPE_NONE ? 0 : first_seen(cache, p1, end);
            if (alibi) {
                for (llama_pos p0 = begin; p0 < end; ++p0) {
                    mask[p0 - from] = seen(p0, p1);
                }
            } else if (begin < end) {
                std::fill(mask + (begin - from), mask + (end - from), seen(0, 0));
            }
        }
    }
}

void specee_rows::find_inputs(specee_range_graph & graph) const {
    graph.attention.clear();
    graph.inputs.clear();
    const auto add = [&](size_t cache, ggml_tensor * k_at, ggml_tensor * v_at, ggml_tensor * mask, ggml_tensor * k_rot,
                         ggml_tensor * v_rot) {
        graph.attention.push_back({ caches[cache], k_at, v_at, mask, k_rot, v_rot });
    };
    for (const auto & input : graph.result->inputs) {
        if (auto * a = dynamic_cast<llm_graph_input_attn_kv *>(input.get())) {
            add(0, a->self_k_idxs, a->self_v_idxs, a->self_kq_mask, a->self_k_rot, a->self_v_rot);
        } else if (auto * a = dynamic_cast<llm_graph_input_attn_k *>(input.get())) {
            add(0, a->self_k_idxs, nullptr, a->self_kq_mask, nullptr, nullptr);
        } else if (auto * a = dynamic_cast<llm_graph_input_attn_kv_iswa *>(input.get())) {
            add(0, a->self_k_idxs, a->self_v_idxs, a->self_kq_mask, a->self_k_rot, a->self_v_rot);
            add(1, a->self_k_idxs_swa, a->self_v_idxs_swa, a->self_kq_mask_swa, a->self_k_rot_swa, a->self_v_rot_swa);
        } else if (auto * a = dynamic_cast<llm_graph_input_attn_k_iswa *>(input.get())) {
            add(0, a->self_k_idxs, nullptr, a->self_kq_mask, a->self_k_rot, nullptr);
            add(1, a->self_k_idxs_swa, nullptr, a->self_kq_mask_swa, a->self_k_rot_swa, nullptr);
        } else {
            graph.inputs.push_back(input.get());
        }
    }
}

void specee_rows::set_inputs(const specee_attention_input & input) {
    const llama_kv_cache & cache   = *input.cache;
    const int64_t          n_cells = cache.get_size();
    const auto             n       = (int64_t) batch.size();
    auto *                 k_at    = static_cast<int64_t *>(input.k_at->data);
    auto *                 v_at    = input.v_at == nullptr ? nullptr : static_cast<int64_t *>(input.v_at->data);
    // numbers that have an index of their own: 1, or all of V
    const int64_t n_v = input.v_at == nullptr ? 0 : input.v_at->ne[0] / n;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t stream = cache.get_stream(batch[i]->slot);
        k_at[i]              = stream * n_cells + batch[i]->cell;
        for (int64_t j = 0; j < n_v; ++j) {
            v_at[i * n_v + j] = (stream * n_v + j) * n_cells + batch[i]->cell;
        }
    }
    if (input.mask->type == GGML_TYPE_F16) {
        set_mask(cache, static_cast<ggml_fp16_t *>(input.mask->data));
    } else {
        set_mask(cache, static_cast<float *>(input.mask->data));
    }
    if (input.k_rot != nullptr) {
        cache.set_input_k_rot(input.k_rot);
    }
    if (input.v_rot != nullptr) {
        cache.set_input_v_rot(input.v_rot);
    }
}

// ---- in graphs -----------------------------------------------------------------------------------------------------

// K or V of n_slots slots, from that of `stream` on, cells `from` to n_kv. `t` is that of another one.
static ggml_tensor * view_slots(ggml_context * ctx0, const ggml_tensor * t, uint32_t stream, int64_t n_slots,
                                int64_t from, int64_t n_kv) {
    const bool   transposed = t->nb[1] > t->nb[2]; // as in build_attn_mha
    const size_t of_slot    = t->nb[3];
    const size_t at         = t->view_offs % of_slot + stream * of_slot + from * (transposed ? t->nb[0] : t->nb[2]);
    return ggml_view_4d(ctx0, t->view_src, transposed ? n_kv - from : t->ne[0], t->ne[1],
                        transposed ? t->ne[2] : n_kv - from, n_slots, t->nb[1], t->nb[2], of_slot, at);
}

// A part of the mask, for n_samples. All layers have the same one, of which a device gets one copy.
static ggml_tensor * view_mask(ggml_context * ctx0, specee_range_graph & graph, ggml_tensor * mask, int64_t n_cells,
                               int64_t n_rows, int64_t n_samples, size_t at) {
    for (ggml_tensor * t : graph.masks) {
        if (t->view_src == mask && t->view_offs == at && t->ne[0] == n_cells && t->ne[1] == n_rows &&
            t->ne[3] == n_samples) {
            return t;
        }
    }
    const size_t nb = n_cells * ggml_type_size(mask->type);
    graph.masks.push_back(ggml_view_4d(ctx0, mask, n_cells, n_rows, 1, n_samples, nb, nb * n_rows, nb * n_rows, at));
    return graph.masks.back();
}

bool specee_rows::has_window(const llm_graph_context & builder, int il) const {
    return caches.size() > 1 && builder.hparams.is_swa(il) &&
           std::any_of(groups.begin(), groups.end(), [](const specee_group & g) { return g.window > 0; });
}

// Whether the CPU itself computes with a layer's K or V.
static bool is_on_cpu(const ggml_tensor * t) {
    const ggml_tensor * const of = t->view_src == nullptr ? t : t->view_src;
    return of->buffer != nullptr && ggml_backend_buffer_is_host(of->buffer);
}

ggml_tensor * specee_rows::attend(const llm_graph_context & builder, const specee_attention_of & a) {
    ggml_context * ctx0     = builder.ctx0;
    const bool     windowed = has_window(builder, a.il);
    // other devices have other kernels for several rows, which add in another order: there one row after the other
    const bool    together = is_on_cpu(a.k);
    ggml_tensor * result   = nullptr;
    size_t        at       = 0; // of this run's mask
    for (auto first = groups.begin(), end = first; first != groups.end(); first = end) {
        // slots whose K and V lie one after the other, alike in shape: one product has all of them
        end                   = !together ? first + 1 : std::find_if(first, groups.end(), [&](const specee_group & g) {
            return g.n_rows != first->n_rows || g.n_kv != first->n_kv || g.window != first->window ||
                   kv->get_stream(g.slot) != kv->get_stream(first->slot) + (uint32_t) (&g - &*first);
        });
        const auto    n_slots = end - first;
        const auto    stream  = kv->get_stream(first->slot);
        const int64_t from    = windowed ? first->window : 0;
        const int64_t n_cells = first->n_kv - from;
        const int32_t n_rows  = together ? first->n_rows : 1;
        ggml_tensor * k       = view_slots(ctx0, a.k, stream, n_slots, from, first->n_kv);
        ggml_tensor * v       = view_slots(ctx0, a.v, stream, n_slots, from, first->n_kv);
        for (int32_t row = first->first; row < first->first + first->n_rows; row += n_rows) {
            ggml_tensor * qs = ggml_view_3d(ctx0, a.q, a.q->ne[0], a.q->ne[1], n_rows * n_slots, a.q->nb[1], a.q->nb[2],
                                            row * a.q->nb[2]);
            ggml_tensor * ms = view_mask(ctx0, *building, a.mask, n_cells, n_rows, n_slots, at);
            at += ggml_nbytes(ms);

            ggml_tensor * part = builder.build_attn_mha(qs, k, v, nullptr, ms, a.sinks, a.v_mla, 0, a.scale, a.il);
            result             = result == nullptr ? part : ggml_concat(ctx0, result, part, 1);
        }
    }
    return result;
}

ggml_tensor * specee_rows::attend_flash(const llm_graph_context & builder, const specee_attention_of & a) {
    ggml_context *        ctx0    = builder.ctx0;
    const llama_hparams & hparams = builder.hparams;
    const float           softcap = hparams.attn_soft_cap ? hparams.f_attn_logit_softcapping : 0.0f;
    ggml_tensor *         q       = a.q;
    ggml_tensor *         result  = nullptr;
    size_t                at      = 0; // of this slot's mask
    for (const specee_group & group : groups) {
        const auto stream = kv->get_stream(group.slot);
        // each row is a sample of one query; all of them read the same K and V, in steps of no bytes
        const auto repeated = [&](ggml_tensor * t) {
            t        = ggml_view_4d(ctx0, t, t->ne[0], t->ne[2], t->ne[1], 1, t->nb[2], t->nb[1], 0, 0);
            t->ne[3] = group.n_rows; // not as an argument: ggml_view_4d takes it for more memory
            return t;
        };
        ggml_tensor * k  = repeated(view_slots(ctx0, a.k, stream, 1, 0, group.n_kv));
        ggml_tensor * v  = repeated(view_slots(ctx0, a.v, stream, 1, 0, group.n_kv));
        ggml_tensor * qs = ggml_view_4d(ctx0, q, q->ne[0], 1, q->ne[1], group.n_rows, q->nb[2], q->nb[1], q->nb[2],
                                        group.first * q->nb[2]);
        ggml_tensor * ms = view_mask(ctx0, *building, a.mask, group.n_kv, 1, group.n_rows, at);
        at += ggml_nbytes(ms);

        ggml_tensor * part = ggml_flash_attn_ext(ctx0, qs, k, v, ms, a.scale, hparams.f_max_alibi_bias, softcap);
        ggml_flash_attn_ext_add_sinks(part, a.sinks);
        ggml_prec_set_acc(part, GGML_PREC_F32);
        if (a.v_mla != nullptr) { // [n, heads, 1, rows]
            part = ggml_mul_mat(ctx0, a.v_mla, ggml_permute(ctx0, part, 0, 2, 1, 3));
            part = ggml_cont(ctx0, ggml_permute(ctx0, part, 0, 2, 1, 3));
        }
        part   = ggml_reshape_2d(ctx0, part, part->ne[0] * part->ne[1], part->ne[3]);
        result = result == nullptr ? part : ggml_concat(ctx0, result, part, 1);
    }
    ggml_build_forward_expand(builder.gf, result);
    return result;
}

// ---- call site inside llama.cpp ------------------------------------------------------------------------------------

// That may compute a graph which is built now.
static int32_t most_threads(const llm_graph_context & builder) {
    const specee_rows * const rows = builder.cparams.specee;
    if (rows != nullptr) {
        return rows->threads.most();
    }
    const int32_t n_cores = specee_core_count(); // the context is being opened
    return n_cores > 0 ? std::min(n_cores, builder.cparams.n_threads_batch) : builder.cparams.n_threads_batch;
}

// One operation for all of attention, where K and V lie in memory of the CPU and it has a kernel for them.
static ggml_tensor * attend_at_once(const llm_graph_context & builder, const specee_attention_of & a) {
    static const auto op = [] {
        ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        ggml_backend_reg_t reg = cpu != nullptr ? ggml_backend_dev_backend_reg(cpu) : nullptr;
        void *             at  = reg ? ggml_backend_reg_get_proc_address(reg, "specee_attention_op") : nullptr;
        return reinterpret_cast<specee_attention_op_t>(at);
    }();
    const llama_hparams & hparams = builder.hparams;
    if (op == nullptr || builder.cparams.flash_attn || a.kq_b != nullptr || a.v_mla != nullptr || a.mask == nullptr ||
        builder.arch == LLM_ARCH_GROK || hparams.attn_soft_cap || hparams.f_max_alibi_bias > 0.0f ||
        a.v->nb[1] <= a.v->nb[2] || !is_on_cpu(a.k) || !is_on_cpu(a.v)) {
        return nullptr;
    }
    const specee_attention_tensors tensors = { a.q, a.k, a.v, a.mask, a.sinks, a.scale, most_threads(builder) };
    ggml_tensor * const            result  = op(builder.ctx0, &tensors);
    if (result != nullptr) {
        ggml_build_forward_expand(builder.gf, result);
    }
    return result;
}

ggml_tensor * specee_attention(const llm_graph_context & builder, const specee_attention_of & a) {
    specee_rows * rows = builder.cparams.specee;
    if (rows != nullptr && rows->is_attending) { // of some of the slots
        return attend_at_once(builder, a);
    }
    if (rows == nullptr || rows->building == nullptr) {
        return attend_at_once(builder, a);
    }
    const bool flash = builder.cparams.flash_attn;
    const bool alone = flash || !is_on_cpu(a.k); // each row is computed as one alone
    if ((alone ? rows->batch.size() : rows->groups.size()) < 2 && !rows->has_window(builder, a.il)) {
        return attend_at_once(builder, a);
    }
    if (a.kq_b != nullptr) {
        throw std::runtime_error("attention with a bias for each pair of tokens");
    }
    specee_scope_guard done([&] { rows->is_attending = false; });
    rows->is_attending = true;
    return flash ? rows->attend_flash(builder, a) : rows->attend(builder, a);
}

// Attention of a batch of rows: each slot has K and V of its own, and each row sees its ancestors.
//
// The products with weights run over all rows together. Attention runs for each slot over as many cells as it would if
// the slot were alone, so that a row's bits do not depend on what runs beside it; slots that are alike share one
// product of each kind, which saves the threads' waiting for each other. The masks of the slots lie one after the other
// in the mask that llama.cpp makes for the whole batch, which is never smaller.
#include "hooks.h"
#include "rows.h"

#include "llama-graph.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

static constexpr int32_t KV_PADDING = 256; // as in llama_kv_cache::get_n_kv

void specee_rows::set_extents() {
    int32_t most = 0;
    for (specee_group & group : groups) {
        const specee_slot & s = slots[group.slot];
        const int32_t       n = s.length + s.n_in_flight(); // no cell beyond is in use
        group.n_kv            = std::min<int32_t>(GGML_PAD(n, KV_PADDING), kv->get_size());
        most                  = std::max(most, group.n_kv);
    }
    llama_kv_cache::slot_info & first = memory->sinfos[0];
    first.s0 = first.s1 = kv->get_stream(groups[0].slot);
    first.strm[0]       = first.s0;
    memory->n_kv        = most;
}

template <typename T> void specee_rows::set_mask(T * mask) const {
    const auto value = [](float x) {
        if constexpr (std::is_same_v<T, float>) {
            return x;
        } else {
            return ggml_fp32_to_fp16(x);
        }
    };
    const T seen = value(0.0f), hidden = value(-INFINITY);
    for (const specee_group & group : groups) {
        const specee_slot & s = slots[group.slot];
        for (int32_t i = group.first; i < group.first + group.n_rows; ++i, mask += group.n_kv) {
            // side rows up to the principal chain, then all before
            const specee_row * r = batch[i];
            std::fill_n(mask, group.n_kv, hidden);
            for (; r != nullptr && r->is_side; r = parent_in_flight(*r)) {
                mask[r->cell] = seen;
            }
            std::fill_n(mask, r == nullptr ? s.length : r->pos + 1, seen);
        }
    }
}

void specee_rows::set_inputs(const llm_graph_input_attn_kv & inputs) {
    const int64_t n_cells = kv->get_size();
    const auto    n       = (int64_t) batch.size();
    auto *        k_at    = static_cast<int64_t *>(inputs.self_k_idxs->data);
    auto *        v_at    = static_cast<int64_t *>(inputs.self_v_idxs->data);
    const int64_t n_v     = inputs.self_v_idxs->ne[0] / n; // numbers that have an index of their own: 1, or all of V
    for (int64_t i = 0; i < n; ++i) {
        const int64_t stream = kv->get_stream(batch[i]->slot);
        k_at[i]              = stream * n_cells + batch[i]->cell;
        for (int64_t j = 0; j < n_v; ++j) {
            v_at[i * n_v + j] = (stream * n_v + j) * n_cells + batch[i]->cell;
        }
    }
    if (inputs.self_kq_mask->type == GGML_TYPE_F16) {
        set_mask(static_cast<ggml_fp16_t *>(inputs.self_kq_mask->data));
    } else {
        set_mask(static_cast<float *>(inputs.self_kq_mask->data));
    }
    if (inputs.self_k_rot != nullptr) {
        kv->set_input_k_rot(inputs.self_k_rot);
    }
    if (inputs.self_v_rot != nullptr) {
        kv->set_input_v_rot(inputs.self_v_rot);
    }
}

ggml_tensor * specee_rows::attend(const llm_graph_context & builder, ggml_tensor * q, ggml_tensor * mask, float scale,
                                  int il) {
    ggml_context * ctx0   = builder.ctx0;
    ggml_tensor *  result = nullptr;
    size_t         at     = 0; // of this run's mask
    for (auto first = groups.begin(), end = first; first != groups.end(); first = end) {
        // slots whose K and V lie one after the other, alike in shape: one product has all of them
        end                = std::find_if(first, groups.end(), [&](const specee_group & g) {
            return g.n_rows != first->n_rows || g.n_kv != first->n_kv ||
                   kv->get_stream(g.slot) != kv->get_stream(first->slot) + (uint32_t) (&g - &*first);
        });
        const auto n_slots = end - first;
        cells.s0           = kv->get_stream(first->slot);
        cells.s1           = cells.s0 + n_slots - 1;

        ggml_tensor * k       = kv->get_k(ctx0, il, first->n_kv, cells);
        ggml_tensor * v       = kv->get_v(ctx0, il, first->n_kv, cells);
        ggml_tensor * qs      = ggml_view_3d(ctx0, q, q->ne[0], q->ne[1], first->n_rows * n_slots, q->nb[1], q->nb[2],
                                             first->first * q->nb[2]);
        const size_t  nb      = first->n_kv * ggml_type_size(mask->type);
        const size_t  of_slot = nb * first->n_rows;
        ggml_tensor * ms = ggml_view_4d(ctx0, mask, first->n_kv, first->n_rows, 1, n_slots, nb, of_slot, of_slot, at);
        at += of_slot * n_slots;

        ggml_tensor * part = builder.build_attn_mha(qs, k, v, nullptr, ms, nullptr, nullptr, 0, scale, il);
        result             = result == nullptr ? part : ggml_concat(ctx0, result, part, 1);
    }
    return result;
}

ggml_tensor * specee_rows::attend_flash(const llm_graph_context & builder, ggml_tensor * q, ggml_tensor * mask,
                                        float scale, int il) {
    ggml_context *        ctx0    = builder.ctx0;
    const llama_hparams & hparams = builder.hparams;
    const float           softcap = hparams.attn_soft_cap ? hparams.f_attn_logit_softcapping : 0.0f;
    ggml_tensor *         result  = nullptr;
    size_t                at      = 0; // of this slot's mask
    for (const specee_group & group : groups) {
        cells.s0 = cells.s1 = kv->get_stream(group.slot);
        // each row is a sample of one query; all of them read the same K and V, in steps of no bytes
        const auto repeated = [&](ggml_tensor * t) {
            t        = ggml_view_4d(ctx0, t, t->ne[0], t->ne[2], t->ne[1], 1, t->nb[2], t->nb[1], 0, 0);
            t->ne[3] = group.n_rows; // not as an argument: ggml_view_4d takes it for more memory
            return t;
        };
        ggml_tensor * k  = repeated(kv->get_k(ctx0, il, group.n_kv, cells));
        ggml_tensor * v  = repeated(kv->get_v(ctx0, il, group.n_kv, cells));
        ggml_tensor * qs = ggml_view_4d(ctx0, q, q->ne[0], 1, q->ne[1], group.n_rows, q->nb[2], q->nb[1], q->nb[2],
                                        group.first * q->nb[2]);
        const size_t  nb = group.n_kv * ggml_type_size(mask->type);
        ggml_tensor * ms = ggml_view_4d(ctx0, mask, group.n_kv, 1, 1, group.n_rows, nb, nb, nb, at);
        at += nb * group.n_rows;

        ggml_tensor * part = ggml_flash_attn_ext(ctx0, qs, k, v, ms, scale, hparams.f_max_alibi_bias, softcap);
        ggml_prec_set_acc(part, GGML_PREC_F32);
        part   = ggml_reshape_2d(ctx0, part, part->ne[0] * part->ne[1], part->ne[3]);
        result = result == nullptr ? part : ggml_concat(ctx0, result, part, 1);
    }
    ggml_build_forward_expand(builder.gf, result);
    return result;
}

// ---- call site inside llama.cpp ------------------------------------------------------------------------------------

ggml_tensor * specee_attention(const llm_graph_context & builder, ggml_tensor * q, ggml_tensor * mask, float scale,
                               int il) {
    specee_rows * rows = builder.cparams.specee;
    if (rows == nullptr || rows->building == nullptr || rows->batch.size() < 2) {
        return nullptr;
    }
    if (builder.cparams.flash_attn) {
        return rows->attend_flash(builder, q, mask, scale, il);
    }
    return rows->groups.size() < 2 ? nullptr : rows->attend(builder, q, mask, scale, il);
}

// What some layers make of each token: EAGLE-3 heads draft from it.
//
// A slot has memory for each position of its window. Rows of its principal chain write theirs there as they pass the
// layers, so that nothing is moved when they are committed; side rows are never committed, and have none.
#include "rows.h"

#include "llama-graph.h"

#include <algorithm>

int32_t specee_rows::keep_layers(int32_t n, const int32_t * layers) {
    if (level < SPECEE_LEVEL_RANGES) {
        return fail_level();
    }
    if (n < 0 || (n > 0 && layers == nullptr) ||
        std::any_of(layers, layers + n, [&](int32_t layer) { return layer < 1 || layer >= n_layer; })) {
        return specee_fail(SPECEE_INVALID, "states are kept of layers 1 to " + std::to_string(n_layer - 1));
    }
    std::vector<int32_t>                       wanted(layers, layers + n);
    std::vector<decltype(specee_slot::states)> memory;
    for (size_t i = 0; n > 0 && i < slots.size(); ++i) {
        // pages that nothing is written to take no memory
        const size_t n_values = (size_t) ctx.n_ctx_seq() * n * n_embd;
        memory.emplace_back(static_cast<ggml_fp16_t *>(std::calloc(n_values, sizeof(ggml_fp16_t))));
        if (memory.back() == nullptr) {
            throw std::bad_alloc();
        }
    }
    drop_graphs();
    layer_outputs.clear();
    ctx.sched_need_reserve = true;
    kept_layers.swap(wanted);
    for (size_t i = 0; i < slots.size(); ++i) {
        slots[i].states.reset(n > 0 ? memory[i].release() : nullptr);
        slots[i].n_states = 0;
    }
    for (specee_row & r : places) {
        r.no_states = r.depth > 0;
    }
    return SPECEE_OK;
}

void specee_rows::mark_kept(std::vector<specee_result> & kept, ggml_tensor * cur, int32_t done) const {
    kept.resize(kept_layers.size());
    for (size_t i = 0; i < kept.size(); ++i) {
        if (kept_layers[i] == done) {
            ggml_set_output(cur);
            kept[i].tensor = cur;
        }
    }
}

void specee_rows::keep_state(specee_slot & s, llama_pos p, size_t i, const float * state) {
    ggml_fp32_to_fp16_row(state, s.states.get() + (p * kept_layers.size() + i) * n_embd, n_embd);
}

void specee_rows::keep_states(const specee_range_graph & graph, bool kv_only) {
    if (kv_only) {
        for (specee_row * r : batch) {
            r->no_states = true;
        }
        return;
    }
    for (size_t i = 0; i < graph.kept.size(); ++i) {
        for (size_t j = 0; graph.kept[i].tensor != nullptr && j < batch.size(); ++j) {
            if (!batch[j]->is_side) {
                keep_state(slots[batch[j]->slot], batch[j]->pos, i, graph.kept[i].row((int32_t) j));
            }
        }
    }
}

void specee_rows::keep_prompt_states(specee_slot & s, int32_t n) {
    const auto found = layer_outputs.find(ctx.gf_res_prev_active);
    if (s.states == nullptr || s.n_states != s.length || found == layer_outputs.end()) {
        return;
    }
    const auto are_there = [&](const specee_result & result) {
        const ggml_tensor * t = result.tensor;
        return t != nullptr && t->buffer != nullptr && t->ne[1] == n;
    };
    if (!std::all_of(found->second.begin(), found->second.end(), are_there)) {
        return; // the batch was computed in several parts
    }
    layer_out.resize((size_t) n * n_embd);
    for (size_t i = 0; i < found->second.size(); ++i) {
        ggml_backend_tensor_get(found->second[i].tensor, layer_out.data(), 0, layer_out.size() * sizeof(float));
        for (int32_t j = 0; j < n; ++j) {
            keep_state(s, s.length + j, i, layer_out.data() + (size_t) j * n_embd);
        }
    }
    s.n_states += n;
}

int32_t specee_rows::layer_states(llama_seq_id slot, llama_pos begin, int32_t n, float * out) const {
    const specee_slot * s = find_slot(slot);
    if (s == nullptr || !specee_given(out)) {
        return SPECEE_INVALID;
    }
    if (n < 0 || begin < 0 || begin > s->n_states - n) {
        return specee_fail(SPECEE_INVALID, "the states of these tokens are not kept");
    }
    const size_t width = kept_layers.size() * n_embd;
    ggml_fp16_to_fp32_row(s->states.get() + begin * width, out, n * width);
    return SPECEE_OK;
}

// ---- C ABI ---------------------------------------------------------------------------------------------------------

int32_t specee_rows_keep_layers(specee_rows * rows, int32_t n, const int32_t * layers) {
    return specee_entry(rows, [&] { return rows->keep_layers(n, layers); });
}

llama_pos specee_rows_n_layer_states(const specee_rows * rows, llama_seq_id slot) {
    return specee_entry(rows, [&] {
        const specee_slot * s = rows->find_slot(slot);
        return s == nullptr ? (llama_pos) SPECEE_INVALID : s->n_states;
    });
}

int32_t specee_rows_layer_states(const specee_rows * rows, llama_seq_id slot, llama_pos begin, int32_t n, float * out) {
    return specee_entry(rows, [&] { return rows->layer_states(slot, begin, n, out); });
}

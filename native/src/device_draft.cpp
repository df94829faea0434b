#include "device_draft.h"

#include "draft_head.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

static constexpr size_t N_TENSORS = 32; // of weights and graph

specee_device_draft::specee_device_draft(const specee_device & device, const specee_draft_head & head,
                                         const specee_token_matrices & matrices, bool by_lens) :
    backend(device.backend) {
    const int64_t n_embd  = matrices.n_embd;
    const int64_t n_short = head.up.n_rows;
    ctx.reset(ggml_init({ N_TENSORS * ggml_tensor_overhead() + ggml_graph_overhead_custom(N_TENSORS, false), nullptr,
                          /*.no_alloc =*/true }));
    ggml_context * ctx0 = ctx.get();
    ggml_tensor *  down = ggml_new_tensor_2d(ctx0, GGML_TYPE_Q8_0, head.down.n_cols, head.down.n_rows);
    ggml_tensor *  up   = ggml_new_tensor_2d(ctx0, GGML_TYPE_Q8_0, head.up.n_cols, n_short);
    ggml_tensor *  bias = ggml_new_tensor_1d(ctx0, GGML_TYPE_F32, n_short);
    weights.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx0, device.buft()));
    if (weights == nullptr) {
        return;
    }
    ggml_backend_buffer_set_usage(weights.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    ggml_backend_tensor_set(down, head.down.data.data(), 0, ggml_nbytes(down));
    ggml_backend_tensor_set(up, head.up.data.data(), 0, ggml_nbytes(up));
    ggml_backend_tensor_set(bias, head.bias.data(), 0, ggml_nbytes(bias));

    at        = ggml_new_tensor_1d(ctx0, GGML_TYPE_I32, 1);
    embedding = ggml_new_tensor_1d(ctx0, GGML_TYPE_F32, n_embd);
    ggml_set_input(at);
    ggml_set_input(embedding);
    ggml_tensor * state = ggml_get_rows(ctx0, (by_lens ? device.estimates : device.states).tensor, at);
    ggml_tensor * normed =
        matrices.centred ? ggml_norm(ctx0, state, matrices.eps) : ggml_rms_norm(ctx0, state, matrices.eps);
    ggml_tensor * z      = ggml_mul_mat(ctx0, down, ggml_concat(ctx0, normed, embedding, 0));
    ggml_tensor * scores = ggml_add(ctx0, ggml_mul_mat(ctx0, up, z), bias);
    ggml_tensor * places = ggml_top_k(ctx0, scores, SPECEE_K_MAX);
    ggml_tensor * values = ggml_get_rows(ctx0, ggml_reshape_2d(ctx0, scores, 1, n_short), places);
    best = ggml_concat(ctx0, ggml_reshape_1d(ctx0, values, SPECEE_K_MAX), ggml_cast(ctx0, places, GGML_TYPE_F32), 0);
    ggml_set_output(best);
    gf = ggml_new_graph_custom(ctx0, N_TENSORS, false);
    ggml_build_forward_expand(gf, best);
    for (int i = 0; i < ggml_graph_n_nodes(gf); ++i) {
        if (!ggml_backend_supports_op(backend, ggml_graph_node(gf, i))) {
            return;
        }
    }
    memory.reset(ggml_gallocr_new(device.buft()));
    is_ready = ggml_gallocr_alloc_graph(memory.get(), gf);
}

void specee_device_draft::best_guesses(int32_t place, const float * normalised, int32_t * guesses,
                                       specee_transfers & transfers) {
    ggml_backend_tensor_set(at, &place, 0, sizeof(place));
    ggml_backend_tensor_set(embedding, normalised, 0, ggml_nbytes(embedding));
    if (ggml_backend_graph_compute(backend, gf) != GGML_STATUS_SUCCESS) {
        throw std::runtime_error("the draft head's device could not compute");
    }
    float         found[2 * SPECEE_K_MAX];
    const float * scores = found;
    const float * places = found + SPECEE_K_MAX;
    ggml_backend_tensor_get(best, found, 0, sizeof(found));
    transfers.n_to_device += 2;
    transfers.bytes_to_device += (int64_t) (sizeof(place) + ggml_nbytes(embedding));
    ++transfers.n_to_host;
    transfers.bytes_to_host += sizeof(found);
    ++transfers.n_waits;

    std::iota(guesses, guesses + SPECEE_K_MAX, 0);
    std::sort(guesses, guesses + SPECEE_K_MAX, [&](int32_t a, int32_t b) {
        return scores[a] > scores[b] || (scores[a] == scores[b] && places[a] < places[b]);
    });
    std::transform(guesses, guesses + SPECEE_K_MAX, guesses, [&](int32_t i) { return (int32_t) places[i]; });
}

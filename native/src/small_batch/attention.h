// Attention of several rows over K and V in F16, in one operation of a graph, with the bits of ggml's operations.
//
// K q, scale and mask, softmax and V p are computed for blocks of rows and heads that share K and V: these are read and
// converted once for a block, or a group of its rows, and scores stay in the caches of a core. The order of additions
// is that of ggml's kernel for batches (tinyBLAS); up to 8 rows that of ggml_vec_dot_f16, so that each gets the bits
// that it has alone. One row whose heads do not go evenly to the threads is left to ggml's operations and the kernel of
// f16.cpp: they share out its cells.
#pragma once

struct ggml_tensor;

#ifdef __cplusplus
extern "C" {
#endif

// What llama_graph_context::build_attn_mha has before it permutes: q [n, heads, rows], K [n, heads, cells, streams],
// V [cells, heads, n, streams], mask [cells, rows, 1, streams], sinks or null.
struct specee_attention_tensors {
    struct ggml_tensor * q;
    struct ggml_tensor * k;
    struct ggml_tensor * v;
    struct ggml_tensor * mask;
    struct ggml_tensor * sinks;
    float                scale;
    int                  n_threads; // that compute it at most; further ones have nothing to do
};

struct ggml_context;

// The operation [n * heads, rows]; null for one row as said above, where shapes or types are others, or where this CPU
// has no kernel for it. The memory that its threads need is part of the graph's, so that it is got before they run.
struct ggml_tensor * specee_attention_op(struct ggml_context * ctx, const struct specee_attention_tensors * a);
typedef struct ggml_tensor * (*specee_attention_op_t)(struct ggml_context *, const struct specee_attention_tensors *);

#ifdef __cplusplus
}
#endif

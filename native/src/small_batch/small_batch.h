// Matrix products for 1 to 8 rows of activations: one pass over the weights, and for each row the bits that it has
// alone.
//
// The order of additions is that of ggml's kernels for one row (ggml_vec_dot_* and the repacked gemv), so the result of
// a row depends neither on the rows beside it nor on the number of threads, and equals an unpatched ggml's. Called from
// ggml-cpu (patch 0004); C, because ggml-cpu.c is.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Rows up to this number are treated as rows that come alone.
enum { SPECEE_SMALL_BATCH = 8 };
// Weight rows that a thread takes at a time: larger chunks prefetch better, smaller ones share out better.
enum { SPECEE_CHUNK = 256 };

// Where the weights lie: rows as in the file, or ggml's repacked groups: as many rows to a group (the upper digit), of
// which as many numbers stand together (the lower one). Others have no kernel here.
enum specee_layout {
    SPECEE_ROWS         = 0,
    SPECEE_REPACKED_4X4 = 0x44,
    SPECEE_REPACKED_4X8 = 0x48,
    SPECEE_REPACKED_8X4 = 0x84,
    SPECEE_REPACKED_8X8 = 0x88,
    SPECEE_AMX_16X4     = 0x104, // all of n_out / 16 groups, as amx/mmq.cpp packs them
    SPECEE_COLUMNS      = 0x105  // n_out / 16 rows of tiles of our own (columns.h)
};

struct specee_product {
    int                type; // ggml_type of the weights
    enum specee_layout layout;
    int64_t            n_in;           // length of a row
    const void *       weights;        // first row, or the first group
    size_t             weights_stride; // bytes from row to row (a group of eight rows takes eight times as many)
    int64_t            n_out;          // weight rows
    const void *       rows;           // quantized activations (as the type's vec_dot_type)
    size_t             rows_stride;
    int64_t            n_rows;
    float *            out;        // out[row * out_stride + weight row]
    size_t             out_stride; // floats
};

// Computes the product; false when there is no kernel for it here, and nothing was done.
bool specee_small_batch(const struct specee_product * p);

// Whether there is a kernel for 2 to 8 rows of activations and a matrix of this size, in the layout in which ggml keeps
// such weights here.
bool specee_has_small_batch(int type, int64_t n_in, int64_t n_out);

// n activations (a multiple of 256) to block_q8_K, with the bits of ggml's scalar code; false: use that.
bool specee_quantize_q8_k(const float * x, void * to, int64_t n);

// One chunk of ggml's MUL_MAT `dst` whose weights lie as in the file: weight rows r0.. by flattened rows r1.. (a row of
// each head in turn, for attention). `rows`: all activations, quantized. False: do it as ggml does.
struct ggml_tensor;
bool specee_small_batch_chunk(const struct ggml_tensor * dst, const void * rows, size_t rows_stride, int64_t r0_start,
                              int64_t r0_end, int64_t r1_start, int64_t r1_end);

// A thread's share of ggml's FLASH_ATTN_EXT `dst`, where keys and values are q8_0; false, for all threads: do it as
// ggml does.
bool specee_attention_q8_0(const struct ggml_tensor * dst, int thread, int n_threads);

#ifdef __cplusplus
}
#endif

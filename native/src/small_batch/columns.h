// Weights in a layout of our own, where this CPU has kernels for it (x86_columns.h): tiles of 16 weight rows side by
// side, in a ggml buffer type of our own. Prompts are read in it as well, with the additions of ggml's kernels for
// batches.
#pragma once

#include "small_batch.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SPECEE_COLUMNS_ROWS = 16 }; // weight rows of a tile

// Whether there are columns for this type and number of weight rows (a multiple of 16) on this CPU.
bool specee_has_columns(int type, int64_t n_out);

// Rows of quantized blocks, as in a file -> tiles, as many bytes. False where there are none.
bool specee_pack_columns(int type, const void * rows, int64_t n_in, int64_t n_out, void * tiles);

struct ggml_backend_buffer_type;
// The buffer type, or NULL when this CPU has no kernels for it.
struct ggml_backend_buffer_type * specee_columns_buffer_type(void);

#ifdef __cplusplus
}
#endif

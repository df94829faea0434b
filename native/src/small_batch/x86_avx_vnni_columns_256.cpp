#include "x86_half_columns.h"

namespace specee::small_batch {

ColumnKernel find_columns_256_avx_vnni(int type, int64_t n_rows, bool as_batch) {
    return find_half_columns_256<AvxVnni>(type, n_rows, as_batch);
}

} // namespace specee::small_batch

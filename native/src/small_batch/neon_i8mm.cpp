#include "neon_columns.h"
#include "neon_kernels.h"

namespace specee::small_batch {

Kernel find_neon_i8mm(int type, specee_layout layout, int64_t n_rows) {
    return find<true>(type, layout, n_rows);
}

ColumnKernel find_columns_neon_i8mm(int type, int64_t n_rows, bool) {
    return find_columns<true>(type, n_rows);
}

} // namespace specee::small_batch

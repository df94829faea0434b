#include "x86_half_columns.h"
#include "x86_kernels.h"

namespace specee::small_batch {

Kernel find_avx_vnni(int type, specee_layout layout, int64_t n_rows) {
    return find<AvxVnni>(type, layout, n_rows);
}

ColumnKernel find_columns_avx_vnni(int type, int64_t n_rows, bool as_batch) {
    return find_half_columns<AvxVnni>(type, n_rows, as_batch);
}

} // namespace specee::small_batch

#include "x86_columns.h"
#include "x86_kernels.h"

namespace specee::small_batch {

Kernel find_avx512_vnni(int type, specee_layout layout, int64_t n_rows) {
    return find<Avx512Vnni>(type, layout, n_rows);
}

ColumnKernel find_columns_avx512_vnni(int type, int64_t n_rows, bool as_batch) {
    return for_rows(n_rows, [=](auto n) { return column_kernel<decltype(n)::value>(type, as_batch); });
}

} // namespace specee::small_batch

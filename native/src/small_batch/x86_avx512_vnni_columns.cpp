#include "x86_columns.h"

namespace specee::small_batch {

ColumnKernel find_columns_avx512_vnni(int type, int64_t n_rows, bool as_batch) {
    return for_rows(n_rows, [=](auto n) { return column_kernel<decltype(n)::value>(type, as_batch); });
}

} // namespace specee::small_batch

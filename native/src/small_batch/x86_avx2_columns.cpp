#include "x86_half_columns.h"

namespace specee::small_batch {

ColumnKernel find_columns_avx2(int type, int64_t n_rows, bool as_batch) {
    const ColumnKernel of_32 = find_half_columns_32<Avx2>(type, n_rows);
    return of_32.multiply != nullptr ? of_32 : find_columns_256_avx2(type, n_rows, as_batch);
}

} // namespace specee::small_batch

#include "x86_kernels.h"

namespace specee::small_batch {

Kernel find_avx512_vnni(int type, specee_layout layout, int64_t n_rows) {
    return find<Avx512Vnni>(type, layout, n_rows);
}

} // namespace specee::small_batch

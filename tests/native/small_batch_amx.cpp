// Our kernels for ggml's AMX layout against ggml's own for one row, through ggml's code for AMX: the same bits for 1 to
// 8 rows and any number of threads. No tile instruction is reached, so a CPU with AVX512-VNNI runs it. Prints what it
// compared, and a line for each difference. Built and run by test_small_batch_amx.py, which renames the function that
// ggml calls to the one below.
#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml.h"
#include "mmq.h"
#include "small_batch/variants.h"

#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

extern "C" void ggml_barrier(ggml_threadpool *) {} // threads come one after the other here

namespace specee::small_batch {
ColumnKernel find_columns_avx2(int, int64_t, bool) { // not looked at here, and long to compile
    return {};
}
} // namespace specee::small_batch

namespace {

bool use_ours = false;
int  n_ours   = 0; // products that a kernel of ours computed

} // namespace

extern "C" bool small_batch_under_test(const specee_product * p) {
    const bool done = use_ours && specee_small_batch(p);
    n_ours += done;
    return done;
}

namespace {

using Floats = std::vector<float>;

constexpr ggml_type types[] = { GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q8_0,  GGML_TYPE_Q4_K,
                                GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_IQ4_XS };

std::mt19937 random_bits(1);

Floats random_floats(size_t n, int outliers) {
    std::normal_distribution<float> normal;
    Floats                          x(n);
    for (size_t i = 0; i < n; ++i) {
        x[i] = normal(random_bits) * (outliers && i % size_t(outliers) == 0 ? 40.0f : 1.0f);
    }
    return x;
}

struct Weights {
    ggml_context *       context;
    std::vector<uint8_t> packed;
    ggml_tensor *        tensor;

    Weights(ggml_type type, int64_t n_in, int64_t n_out) : context(ggml_init({ 1 << 20, nullptr, true })) {
        tensor                 = ggml_new_tensor_2d(context, type, n_in, n_out);
        const Floats         w = random_floats(size_t(n_in * n_out), 0);
        std::vector<uint8_t> quantized(ggml_nbytes(tensor));
        ggml_quantize_chunk(type, w.data(), quantized.data(), 0, n_out, n_in, nullptr);
        packed.resize(ggml_backend_amx_get_alloc_size(tensor));
        tensor->data = packed.data();
        ggml_backend_amx_convert_weight(tensor, quantized.data(), 0, quantized.size());
    }
    Weights(const Weights &)             = delete;
    Weights & operator=(const Weights &) = delete;
    ~Weights() { ggml_free(context); }

    Floats times(const float * rows, int n, int n_threads) const {
        ggml_tensor * const x = ggml_new_tensor_2d(context, GGML_TYPE_F32, tensor->ne[0], n);
        ggml_tensor * const y = ggml_mul_mat(context, tensor, x);
        Floats              out(size_t(ggml_nelements(y)));
        x->data = const_cast<float *>(rows);
        y->data = out.data();
        std::vector<uint8_t> work(ggml_backend_amx_desired_wsize(y));
        ggml_compute_params  params = {};
        params.nth                  = n_threads;
        params.wsize                = work.size();
        params.wdata                = work.data();
        for (int i = 0; i < 2 * n_threads; ++i) { // again, once all have quantized their share of the rows
            params.ith = i % n_threads;
            ggml_backend_amx_mul_mat(&params, y);
        }
        return out;
    }
};

bool compare(ggml_type type, int64_t n_in, int64_t n_out) {
    const Weights weights(type, n_in, n_out);
    const Floats  rows = random_floats(size_t(SPECEE_SMALL_BATCH * n_in), int(n_in / 7));
    Floats        one_by_one;
    use_ours = false;
    for (int i = 0; i < SPECEE_SMALL_BATCH; ++i) {
        const Floats one = weights.times(rows.data() + i * n_in, 1, 1);
        one_by_one.insert(one_by_one.end(), one.begin(), one.end());
    }
    for (const bool ours : { false, true }) {
        use_ours = ours;
        for (const int n_threads : { 1, 2, 3, 7 }) {
            for (int n = 1; n <= SPECEE_SMALL_BATCH; ++n) {
                const Floats out = weights.times(rows.data(), n, n_threads);
                if (std::memcmp(out.data(), one_by_one.data(), out.size() * sizeof(float)) != 0) {
                    std::printf("%s (%d x %d), %s, %d rows, %d threads: other bits\n", ggml_type_name(type), int(n_in),
                                int(n_out), ours ? "ours" : "row by row", n, n_threads);
                    return false;
                }
            }
        }
    }
    return true;
}

} // namespace

int main() {
    ggml_cpu_init();
    bool equal = true;
    for (const ggml_type type : types) {
        n_ours = 0;
        for (const int64_t n_out : { 32, 96, 224 }) {
            for (const int64_t n_in : { 256, 1536 }) {
                equal = compare(type, n_in, n_out) && equal;
            }
        }
        std::printf("%s %s\n", ggml_type_name(type), n_ours ? "ours" : "ggml");
    }
    return equal ? 0 : 1;
}

// Compiled as ggml is, whose order of additions depends on the instructions it is compiled for.
#include "attention.h"

#include "each.h"
#include "ggml.h"
#include "small_batch.h"
#include "variants.h"

#if ((defined(__AVX512F__) && defined(__AVX512DQ__)) || (defined(__AVX2__) && !defined(__AVX512F__))) &&               \
    defined(__FMA__) && defined(__F16C__) && !defined(__AVX512FP16__)

#include "attention_x86.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iterator>

namespace specee::small_batch {
namespace {

constexpr int     lanes     = Floats::lanes;
constexpr int64_t cell_step = 64; // a multiple of what either order of additions takes at a time
constexpr int64_t n_block   = 24; // rows of a block: their q fits into the first cache
constexpr int     n_group   = Floats::n_group;

using V = Floats::V;

constexpr int line = 64 / 2; // of a cache, in F16

// The order of additions, A: the number of accumulators of a sum, whose vectors they take in turn. One, as tinyBLAS
// (batches) has it, or four, as ggml_vec_dot_f16 (a row alone).
constexpr int as_batch = 1;
constexpr int as_row   = 4;

template <int A> V sum(const V * acc) {
    if constexpr (A == as_batch) {
        return acc[0];
    } else {
        return Floats::add(Floats::add(acc[0], acc[2]), Floats::add(acc[1], acc[3]));
    }
}

// ---- scores --------------------------------------------------------------------------------------------------------

struct Keys {
    const char *  k; // first cell
    size_t        stride;
    int64_t       n_cells; // a multiple of the lanes
    const float * q;
    int64_t       n_rows;
    float *       sums;   // n_rows vectors for each `R` cells of a vector of them
    float *       scores; // [row * scores_stride + cell]
    int64_t       scores_stride;
};

// K of D vectors a cell, R cells at a time in registers.
template <int D, int R, int A> [[gnu::flatten]] void scores(const Keys & p) {
    constexpr int parts = lanes / R;
    for (int64_t c = 0; c < p.n_cells; c += lanes) {
        for (int part = 0; part < parts; ++part) {
            // cells that fold together are four apart
            V k[R][D];
            each<R>([&](auto r) {
                const auto * from = reinterpret_cast<const uint16_t *>(
                    p.k + size_t(c + part + part / 4 * (R == 2 ? 4 : 0) + 4 * r) * p.stride);
                each<D>([&](auto d) { k[r][d] = Floats::load(from + d * lanes); });
                for (int at = 0; at < D * lanes; at += line) {
                    __builtin_prefetch(reinterpret_cast<const char *>(from + at) + lanes * p.stride);
                }
            });
            const auto rows = [&](int64_t x, auto n) {
                constexpr int n_now = n;
                V             acc[n_now][R][A];
                each<n_now * R * A>([&](auto at) { acc[at / A / R][at / A % R][at % A] = Floats::zero(); });
                each<D>([&](auto d) {
                    each<n_now>([&](auto i) {
                        const V y = Floats::load(p.q + ((x + i) * D + d) * lanes);
                        each<R>([&](auto r) { acc[i][r][d % A] = Floats::fma(k[r][d], y, acc[i][r][d % A]); });
                    });
                });
                each<n_now>([&](auto i) {
                    V             sums[R];
                    float * const to = p.sums + ((x + i) * parts + part) * lanes;
                    each<R>([&](auto r) { sums[r] = sum<A>(acc[i][r]); });
                    if constexpr (R == 1) {
                        Floats::store(to, sums[0]);
                    } else if constexpr (R == 2) {
                        Floats::store(to, Floats::fold(sums[0], sums[1]));
                    } else {
                        Floats::store(
                            to, Floats::fold_eight(Floats::fold(sums[0], sums[1]), Floats::fold(sums[2], sums[3])));
                    }
                });
            };
            // one accumulator waits for itself: four rows in turn; four fill the registers
            constexpr int at_once = A == as_batch ? (R == 4 ? 2 : 4) : lanes == 8 ? (D > 8 ? 3 : 1) : (D > 4 ? 1 : 2);
            int64_t       x       = 0;
            for (; x + at_once <= p.n_rows; x += at_once) {
                rows(x, std::integral_constant<int, at_once>());
            }
            for (; x < p.n_rows; ++x) {
                rows(x, std::integral_constant<int, 1>());
            }
        }
        for (int64_t x = 0; x < p.n_rows; ++x) {
            const float * from = p.sums + x * parts * lanes;
            V             s[4];
            each<4>([&](auto i) {
                const auto at = [&](int n) { return Floats::load(from + (i + 4 * n) * lanes); };
                if constexpr (parts == 4) {
                    s[i] = at(0);
                } else if constexpr (lanes == 8) {
                    s[i] = Floats::fold(at(0), at(1));
                } else if constexpr (R == 2) {
                    s[i] = Floats::fold_eight(at(0), at(1));
                } else {
                    s[i] = Floats::fold_eight(Floats::fold(at(0), at(1)), Floats::fold(at(2), at(3)));
                }
            });
            Floats::store(p.scores + x * p.scores_stride + c, Floats::fold_last<A == as_row>(s[0], s[1], s[2], s[3]));
        }
    }
}

template <int D, int A> constexpr auto scores_of() {
    constexpr int in_registers = std::min(16 / D, A == as_row ? 2 : 4);
    return scores<D, std::min(in_registers >= 4 ? 4 : in_registers >= 2 ? 2 : 1, Floats::in_cells), A>;
}

// The kernel for heads of n numbers, or nullptr.
using Scores = void (*)(const Keys &);
template <int A, int... N> Scores find_scores_of(int64_t n) {
    Scores     found = nullptr;
    const auto add   = [&](auto of) {
        if constexpr (of % (lanes * A) == 0) {
            found = n == of ? scores_of<of / lanes, A>() : found;
        }
    };
    (add(std::integral_constant<int, N>()), ...);
    return found;
}
template <int A> Scores find_scores(int64_t n) {
    return find_scores_of<A, 32, 64, 80, 96, 112, 128, 160, 192, 256>(n);
}
Scores find_scores(int64_t n, int order) {
    return order == as_row ? find_scores<as_row>(n) : find_scores<as_batch>(n);
}

// ---- values --------------------------------------------------------------------------------------------------------

// Cells whose probabilities, of a group of rows, stay in the first cache for all rows of V.
constexpr int64_t n_near = 1024;
// Numbers of V that stay in the second cache.
constexpr int64_t n_in_cache = 1 << 17;

struct Values {
    const char *  v; // row 0, first cell
    size_t        stride;
    int64_t       n_out; // rows of V: a multiple of 4
    int64_t       n_cells;
    const float * p;   // probabilities as `pack` leaves them
    float *       acc; // memory for the accumulators
    float *       out[n_group];
};

// Four rows of V at a time by X rows of probabilities, one accumulator of each sum after the other.
template <int X, int A> [[gnu::flatten]] void values(const Values & a) {
    constexpr int of_rows = X * 4 * A * lanes; // accumulators of four rows of V
    const float * p       = a.p;
    for (int64_t c = 0; c < a.n_cells; c += n_near) {
        const int64_t n_steps = std::min(n_near, a.n_cells - c) / (lanes * A);
        const bool    is_last = c + n_near >= a.n_cells;
        for (int64_t r = 0; r < a.n_out; r += 4) {
            float * const    to = a.acc + (a.n_cells <= n_near ? 0 : r / 4 * of_rows);
            const uint16_t * v[4];
            each<4>([&](auto k) { v[k] = reinterpret_cast<const uint16_t *>(a.v + size_t(r + k) * a.stride) + c; });
            const float * y = p;
            for (int j = 0; j < A; ++j) {
                float * const now_to = to + j * X * 4 * lanes;
                V             acc[X][4];
                each<X * 4>(
                    [&](auto i) { acc[i / 4][i % 4] = c == 0 ? Floats::zero() : Floats::load(now_to + i * lanes); });
                for (int64_t s = 0; s < n_steps; ++s, y += X * lanes) {
                    V now[X];
                    each<X>([&](auto x) {
                        now[x] = Floats::load(y + x * lanes);
                        asm("" : "+v"(now[x])); // once into a register, not four times as an operand in memory
                    });
                    each<4>([&](auto k) {
                        const auto * const from = v[k] + (s * A + j) * lanes;
                        const V            w    = Floats::load(from);
                        if (j * lanes % line == 0) {
                            __builtin_prefetch(reinterpret_cast<const char *>(from) + 4 * a.stride);
                        }
                        each<X>([&](auto x) { acc[x][k] = Floats::fma(w, now[x], acc[x][k]); });
                    });
                }
                each<X * 4>([&](auto i) { Floats::store(now_to + i * lanes, acc[i / 4][i % 4]); });
            }
            for (int x = 0; is_last && x < X; ++x) {
                V sums[4];
                each<4>([&](auto k) {
                    V parts[A];
                    each<A>([&](auto j) { parts[j] = Floats::load(to + ((j * X + x) * 4 + k) * lanes); });
                    sums[k] = sum<A>(parts);
                });
                _mm_storeu_ps(a.out[x] + r, Floats::sums_of_four<A == as_row>(sums));
            }
        }
        p += n_steps * A * X * lanes;
    }
}

template <int A> auto find_values(int64_t n_rows) {
    return for_rows(n_rows, [](auto n) -> void (*)(const Values &) {
        if constexpr (n <= n_group) {
            return values<n, A>;
        } else {
            return nullptr;
        }
    });
}
auto find_values(int64_t n_rows, int order) {
    return order == as_row ? find_values<as_row>(n_rows) : find_values<as_batch>(n_rows);
}

// ---- blocks of rows ------------------------------------------------------------------------------------------------

struct Attention {
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const ggml_tensor * sinks;
    ggml_tensor *       dst;
    float               scale;

    int64_t n_streams() const { return k->ne[3]; }
    int64_t n_rows() const { return q->ne[2] / n_streams(); } // of a stream
    int64_t n_sharing() const { return q->ne[1] / k->ne[1]; } // heads
    int64_t n_out() const { return v->ne[2] * q->ne[1] * q->ne[2]; }
    int     order() const { return n_rows() <= SPECEE_SMALL_BATCH ? as_row : as_batch; }
};

const float * mask_of(const Attention & a, int64_t stream, int64_t row) {
    return reinterpret_cast<const float *>(static_cast<const char *>(a.mask->data) + size_t(row) * a.mask->nb[1] +
                                           size_t(stream) * a.mask->nb[3]);
}

// s[0..n) -> exp(s * scale + mask - max); the factor that makes them probabilities.
float softmax(const Attention & a, int64_t head, float * s, const float * mask, int64_t n) {
    const V scale = Floats::set(a.scale);
    V       most  = Floats::set(-INFINITY);
    for (int64_t c = 0; c < n; c += lanes) {
        const V x = Floats::add(Floats::mul(Floats::load(s + c), scale), Floats::load(mask + c));
        Floats::store(s + c, x);
        most = Floats::max(most, x);
    }
    float each_most[lanes];
    Floats::store(each_most, most);
    float         max  = *std::max_element(each_most, each_most + lanes);
    const float * sink = a.sinks == nullptr ? nullptr : static_cast<const float *>(a.sinks->data) + head;
    if (sink != nullptr) {
        max = std::max(max, *sink);
    }
    double sum = ggml_vec_soft_max_f32(int(n), s, s, max);
    if (sink != nullptr) {
        sum += double(expf(*sink - max));
    }
    return float(1.0 / sum);
}

// Probabilities of row x of n_rows, as `values` reads them: of `n_near` cells those that the first accumulator takes,
// of the second, ...; for each step and each row a vector.
void pack(const float * s, float factor, int64_t n, int64_t x, int64_t n_rows, int order, float * to) {
    for (int64_t c = 0; c < n; c += n_near) {
        const int64_t n_steps = std::min(n_near, n - c) / (lanes * order);
        for (int j = 0; j < order; ++j) {
            for (int64_t step = 0; step < n_steps; ++step, to += n_rows * lanes) {
                const V p = Floats::mul(Floats::load(s + c + (step * order + j) * lanes), Floats::set(factor));
                Floats::store(to + x * lanes, Floats::rounded(p));
            }
        }
    }
}

// Rows of a block: those from first to end that share a head of K and V, of one stream.
struct Block {
    int64_t stream, kv_head, first, end;
};

// Where attend() puts what it computes, for n rows and some cells.
struct Memory {
    int64_t q, sums, acc, weights, scores; // floats

    Memory(const ggml_tensor * k, const ggml_tensor * v, int64_t n, int64_t n_seen) :
        q(n * k->ne[0]), sums(n * lanes * lanes), acc(v->ne[2] * n_group * as_row * lanes), weights(n * n_seen),
        scores(n * n_seen) {}

    int64_t size() const { return q + sums + acc + weights + scores; }
};

// Of each thread.
int64_t needed_floats(const ggml_tensor * q, const ggml_tensor * k, const ggml_tensor * v) {
    const int64_t n = q->ne[1] / k->ne[1] * (q->ne[2] / k->ne[3]); // that share a head of K and V
    return Memory(k, v, std::min(n, n_block), k->ne[2]).size();
}

void attend(const Attention & a, const Block & b, float * memory) {
    const int64_t d         = a.k->ne[0];
    const int64_t d_v       = a.v->ne[2];
    const int64_t n_cells   = a.k->ne[2];
    const int64_t n_sharing = a.n_sharing();
    const int64_t n         = b.end - b.first;

    // cells that no row of the block sees add nothing, in whole steps
    int64_t from = n_cells, to = 0;
    for (int64_t row = b.first / n_sharing; row <= (b.end - 1) / n_sharing; ++row) {
        const float * const mask = mask_of(a, b.stream, row);
        const auto          sees = [](float x) { return x != -INFINITY; };
        from                     = std::find_if(mask, mask + from, sees) - mask;
        to = n_cells -
             (std::find_if(std::make_reverse_iterator(mask + n_cells), std::make_reverse_iterator(mask + to), sees) -
              std::make_reverse_iterator(mask + n_cells));
    }
    from                 = from / cell_step * cell_step;
    to                   = std::max(from + cell_step, (to + cell_step - 1) / cell_step * cell_step);
    const int64_t n_seen = to - from;
    const Memory  size(a.k, a.v, n, n_seen);
    float * const q       = memory;
    float * const sums    = q + size.q;
    float * const acc     = sums + size.sums;
    float * const weights = acc + size.acc;
    float * const scores  = weights + size.weights;

    const auto head_of = [&](int64_t i) { return b.kv_head * n_sharing + (b.first + i) % n_sharing; };
    const auto row_of  = [&](int64_t i) { return (b.first + i) / n_sharing; };
    for (int64_t i = 0; i < n; ++i) {
        const auto * x =
            reinterpret_cast<const float *>(static_cast<const char *>(a.q->data) + size_t(head_of(i)) * a.q->nb[1] +
                                            size_t(b.stream * a.n_rows() + row_of(i)) * a.q->nb[2]);
        for (int64_t k = 0; k < d; k += lanes) {
            Floats::store(q + i * d + k, Floats::rounded(Floats::load(x + k)));
        }
    }
    const char * const k = static_cast<const char *>(a.k->data) + size_t(b.stream) * a.k->nb[3] +
                           size_t(b.kv_head) * a.k->nb[1] + size_t(from) * a.k->nb[2];
    find_scores(d, a.order())({ k, a.k->nb[2], n_seen, q, n, sums, scores, n_seen });

    const char * const v = static_cast<const char *>(a.v->data) + size_t(b.stream) * a.v->nb[3] +
                           size_t(b.kv_head) * a.v->nb[1] + size_t(from) * a.v->nb[0];
    Values             groups[(n_block + n_group - 1) / n_group];
    for (int64_t i = 0; i < n; i += n_group) {
        const int64_t n_now = std::min<int64_t>(n_group, n - i);
        float * const p     = weights + i * n_seen;
        Values &      group = groups[i / n_group];
        group               = { v, a.v->nb[2], 0, n_seen, p, acc, {} };
        for (int64_t x = 0; x < n_now; ++x) {
            float * const s      = scores + (i + x) * n_seen;
            const float   factor = softmax(a, head_of(i + x), s, mask_of(a, b.stream, row_of(i + x)) + from, n_seen);
            pack(s, factor, n_seen, x, n_now, a.order(), p);
            group.out[x] = static_cast<float *>(a.dst->data) +
                           ((b.stream * a.n_rows() + row_of(i + x)) * a.q->ne[1] + head_of(i + x)) * d_v;
        }
    }
    // as many rows of V as stay in the second cache for all groups
    const int64_t n_tile = std::clamp(n_in_cache / n_seen / 4 * 4, int64_t(4), d_v);
    for (int64_t r = 0; r < d_v; r += n_tile) {
        for (int64_t i = 0; i < n; i += n_group) {
            const int64_t n_now = std::min<int64_t>(n_group, n - i);
            Values &      group = groups[i / n_group];
            group.n_out         = std::min(n_tile, d_v - r);
            find_values(n_now, a.order())(group);
            group.v += size_t(group.n_out) * group.stride;
            for (int64_t x = 0; x < n_now; ++x) {
                group.out[x] += group.n_out;
            }
        }
    }
}

// In how many blocks the rows of a head of K and V go to the threads: equal shares, and K and V read seldom.
int64_t count_blocks(int64_t n, int64_t n_heads, int64_t n_threads) {
    int64_t       best   = 0;
    double        least  = INFINITY;
    const int64_t fewest = (n + n_block - 1) / n_block;
    for (int64_t n_blocks = fewest; n_blocks <= std::min(n, fewest + n_threads); ++n_blocks) {
        constexpr double reading = 0.5; // of K and V, in rows
        const int64_t    turns   = (n_blocks * n_heads + n_threads - 1) / n_threads;
        const double     time    = double(turns) * (double((n + n_blocks - 1) / n_blocks) + reading);
        best                     = time < least ? n_blocks : best;
        least                    = std::min(time, least);
    }
    return best;
}

void compute(ggml_tensor * dst, int thread, int n_threads, void * user) noexcept {
    const auto scale_bits = uint32_t(reinterpret_cast<uintptr_t>(user));
    Attention  a          = { dst->src[0], dst->src[1], dst->src[2], dst->src[3], dst->src[4], dst, 0.0f };
    std::memcpy(&a.scale, &scale_bits, sizeof a.scale);
    // behind the result
    const int64_t n_out    = a.n_out();
    const int64_t n_needed = needed_floats(a.q, a.k, a.v);
    n_threads              = int(std::min<int64_t>(n_threads, (dst->ne[0] - n_out) / n_needed));
    if (thread >= n_threads) {
        return;
    }
    float * const memory   = static_cast<float *>(dst->data) + n_out + thread * n_needed;
    const int64_t n        = a.n_sharing() * a.n_rows();
    const int64_t n_heads  = a.k->ne[1] * a.n_streams();
    const int64_t n_blocks = count_blocks(n, n_heads, n_threads);
    for (int64_t i = thread; i < n_blocks * n_heads; i += n_threads) {
        const int64_t head  = i / n_blocks;
        const int64_t at    = i % n_blocks;
        const Block   block = { head / a.k->ne[1], head % a.k->ne[1], at * n / n_blocks, (at + 1) * n / n_blocks };
        attend(a, block, memory);
    }
}

// Whether each thread has as many heads as the others. ggml's operations share out cells, which always are.
bool is_even(const specee_attention_tensors & a) {
    const int64_t n         = a.q->ne[1] / a.k->ne[1]; // of one row
    const int64_t n_heads   = a.k->ne[1] * a.k->ne[3];
    const int64_t n_threads = std::max(a.n_threads, 1);
    const int64_t n_blocks  = count_blocks(n, n_heads, n_threads);
    return n % n_blocks == 0 && n_blocks * n_heads % n_threads == 0;
}

bool is_known(const specee_attention_tensors & a) {
    const ggml_tensor *q = a.q, *k = a.k, *v = a.v, *mask = a.mask;
    const char * const kernels = std::getenv("SPECEE_KERNELS");
    if (kernels != nullptr && !std::strcmp(kernels, "none")) {
        return false;
    }
    const bool    types   = q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 &&
                            mask->type == GGML_TYPE_F32 && (a.sinks == nullptr || a.sinks->type == GGML_TYPE_F32);
    const bool    strides = q->nb[0] == sizeof(float) && k->nb[0] == 2 && v->nb[0] == 2 && mask->nb[0] == sizeof(float);
    const int64_t n_streams = k->ne[3];
    const bool shapes = q->ne[3] == 1 && q->ne[2] % n_streams == 0 && q->ne[1] % k->ne[1] == 0 &&
                        q->ne[0] == k->ne[0] && v->ne[0] == k->ne[2] && v->ne[1] == k->ne[1] && v->ne[3] == n_streams &&
                        v->ne[2] % 4 == 0 && k->ne[2] % cell_step == 0 && mask->ne[0] == k->ne[2] &&
                        mask->ne[1] == q->ne[2] / n_streams && mask->ne[2] == 1 && mask->ne[3] == n_streams;
    if (!types || !strides || !shapes) {
        return false;
    }
    const int64_t n_rows = q->ne[2] / n_streams;
    const int     order  = n_rows <= SPECEE_SMALL_BATCH ? as_row : as_batch;
    return find_scores(q->ne[0], order) != nullptr && (n_rows > 1 || is_even(a));
}

} // namespace
} // namespace specee::small_batch

ggml_tensor * specee_attention_op(ggml_context * ctx, const specee_attention_tensors * a) {
    using namespace specee::small_batch;
    if (!is_known(*a)) {
        return nullptr;
    }
    uint32_t scale;
    std::memcpy(&scale, &a->scale, sizeof scale);
    ggml_tensor *       args[]   = { a->q, a->k, a->v, a->mask, a->sinks };
    const int64_t       width    = a->v->ne[2] * a->q->ne[1];
    const int64_t       n_floats = width * a->q->ne[2] + std::max(a->n_threads, 1) * needed_floats(a->q, a->k, a->v);
    ggml_tensor * const computed =
        ggml_custom_4d(ctx, GGML_TYPE_F32, n_floats, 1, 1, 1, args, a->sinks == nullptr ? 4 : 5, compute,
                       GGML_N_TASKS_MAX, reinterpret_cast<void *>(uintptr_t(scale)));
    return ggml_view_2d(ctx, computed, width, a->q->ne[2], size_t(width) * sizeof(float), 0);
}

#else

ggml_tensor * specee_attention_op(ggml_context *, const specee_attention_tensors *) {
    return nullptr;
}

#endif

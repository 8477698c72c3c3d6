// Weighted sums of the same source rows, one for each head: what is gathered does not grow with the heads.
#include "cpu/kernels/span.h"

namespace fg {
namespace FG_ISA {
namespace {

constexpr int64_t kSharedBytes = 8192;  // of the source rows that stay in cache while all heads use them

// state[h, c] += sum_e weight[e, h] * x[src[e], c] for H heads and NV vectors of L columns from `column` on.
template <class T, class I, int H, int L, int NV, bool FETCH>
FG_NOINLINE void shared_block(const Span& span, int64_t e0, int64_t e1, int64_t ahead, int64_t column,
                              const accum<T>* weight, int64_t weight_stride, accum<T>* state) {
  using A = accum<T>;
  using V = Vec<A, L>;
  constexpr int kBytes = NV * L * static_cast<int>(sizeof(T));
  const T* x = static_cast<const T*>(span.x) + column;
  const I* src = static_cast<const I*>(span.src);
  const int64_t end = span.edges - 1;
  state += column;
  V acc[H][NV];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 16
    for (int k = 0; k < NV; ++k) acc[h][k] = load<L>(state + h * span.width + k * L);
  for (int64_t e = e0; e < e1; ++e, weight += weight_stride) {
    if constexpr (FETCH) {
      const T* later = x + row_of(src, smaller(e + ahead, end)) * span.stride;
#pragma GCC unroll 16
      for (int b = 0; b < kBytes; b += 64) prefetch(reinterpret_cast<const char*>(later) + b);
    }
    const T* row = x + row_of(src, e) * span.stride;
    V v[NV];
#pragma GCC unroll 16
    for (int k = 0; k < NV; ++k) v[k] = load<L>(row + k * L);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      const V scalar = broadcast<A, L>(weight[h]);
#pragma GCC unroll 16
      for (int k = 0; k < NV; ++k) acc[h][k] = acc[h][k] + v[k] * scalar;
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h)
#pragma GCC unroll 16
    for (int k = 0; k < NV; ++k) store<L>(state + h * span.width + k * L, acc[h][k]);
}

// All columns of H heads; what does not fill a vector goes by in halves of it.
template <class T, class I, int H, int L, int NV, bool FETCH>
FG_INLINE void shared_columns(const Span& span, int64_t e0, int64_t e1, int64_t ahead, int64_t column,
                              const accum<T>* weight, int64_t weight_stride, accum<T>* state) {
  for (; column + NV * L <= span.width; column += NV * L)
    shared_block<T, I, H, L, NV, FETCH>(span, e0, e1, ahead, column, weight, weight_stride, state);
  if constexpr (NV > 1)
    shared_columns<T, I, H, L, 1, FETCH>(span, e0, e1, ahead, column, weight, weight_stride, state);
  else if constexpr (L > 1)
    shared_columns<T, I, H, L / 2, 1, FETCH>(span, e0, e1, ahead, column, weight, weight_stride, state);
}

// A few edges at a time, all their columns for a few heads after the other: memory is read once.
template <class T, class I, int H>
FG_NOINLINE void shared_span(const Span& span, int64_t e0, int64_t e1, const void* given, int64_t heads,
                             void* out) {
  using A = accum<T>;
  constexpr int L = kLanes<A>, NV = kMaxVectors / H;
  const A* weight = static_cast<const A*>(given);
  A* state = static_cast<A*>(out);
  for (int64_t i = 0; i < heads * span.width; ++i) state[i] = 0;
  const int64_t row_bytes = span.width * static_cast<int64_t>(sizeof(T));
  const int64_t chunk = larger<int64_t>(kSharedBytes / larger<int64_t>(row_bytes, 1), 4);
  for (int64_t e = e0; e < e1; e += chunk) {
    const int64_t last = smaller(e + chunk, e1);
    const A* mine = weight + (e - e0) * heads;
    shared_columns<T, I, H, L, NV, true>(span, e, last, chunk, 0, mine, heads, state);
    for (int64_t h = H; h < heads; h += H)
      shared_columns<T, I, H, L, NV, false>(span, e, last, chunk, 0, mine + h, heads, state + h * span.width);
  }
}

}  // namespace

SpanFn shared_sum(int dtype, int index, int64_t padded_heads) {
  SpanFn chosen = nullptr;
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    if (index == kInt32)
      chosen = padded_heads % 4 != 0 ? shared_span<T, int32_t, 2> : shared_span<T, int32_t, 4>;
    else
      chosen = padded_heads % 4 != 0 ? shared_span<T, int64_t, 2> : shared_span<T, int64_t, 4>;
  });
  return chosen;
}

}  // namespace FG_ISA
}  // namespace fg

// gather_reduce and segment_reduce: a block of columns stays in registers while the edges of a row go by.
#include "cpu/kernels/span.h"

namespace fg {
namespace FG_ISA {
namespace {

struct Sum {
  static constexpr bool kEmptyIsOne = false;
  template <class A>
  static constexpr A start = 0;
  template <class V>
  static FG_INLINE V step(V acc, V v) {
    return acc + v;
  }
};
struct Mul {
  static constexpr bool kEmptyIsOne = true;
  template <class A>
  static constexpr A start = 1;
  template <class V>
  static FG_INLINE V step(V acc, V v) {
    return acc * v;
  }
};
// A NaN wins and then stays: no later comparison with it is true.
struct Max {
  static constexpr bool kEmptyIsOne = false;
  template <class A>
  static constexpr A start = -kInfinity<A>;
  template <class V>
  static FG_INLINE V step(V acc, V v) {
    return ((v > acc) | (v != v)) ? v : acc;
  }
};
struct Min {
  static constexpr bool kEmptyIsOne = false;
  template <class A>
  static constexpr A start = kInfinity<A>;
  template <class V>
  static FG_INLINE V step(V acc, V v) {
    return ((v < acc) | (v != v)) ? v : acc;
  }
};

// How many edges ahead rows are fetched, so that about 4 to 8 KiB are under way.
template <int BYTES>
constexpr int64_t kAhead = BYTES <= 128   ? 32
                           : BYTES <= 512 ? 16
                                          : 8;

// NV vectors of L columns from `column` on; the last one is moved back to end where the row ends.
template <class T, class I, class R, int M, int L, int NV>
FG_NOINLINE void block(const Span& span, int64_t e0, int64_t e1, int64_t column, const accum<T>* weight,
                       int64_t weight_stride, void* out) {
  using A = accum<T>;
  using V = Vec<A, L>;
  constexpr int kBytes = NV * L * static_cast<int>(sizeof(T));
  constexpr bool kPrefetch = !__is_same(I, Identity);
  const int64_t last = smaller<int64_t>(column + (NV - 1) * L, span.width - L) - column;
  const T* x = static_cast<const T*>(span.x) + column;
  const I* src = static_cast<const I*>(span.src);
  const int64_t stride = span.stride, end = span.edges - 1;
  int64_t head[NV] = {};
  Vec<int_like<A>, L> lane[NV] = {};
  if constexpr (M == kBroadcast || M == kShuffle) {
    for (int k = 0; k < NV; ++k) {
      const LaneMap& map = span.lanes[column / L + k];
      head[k] = map.first;
      if constexpr (M == kShuffle)
        for (int i = 0; i < L; ++i) lane[k][i] = map.lane[i];
    }
  }
  V acc[NV];
  for (int k = 0; k < NV; ++k) acc[k] = broadcast<A, L>(R::template start<A>);
  for (int64_t e = e0; e < e1; ++e, weight += M == kNone ? 0 : weight_stride) {
    if constexpr (kPrefetch) {
      const T* later = x + row_of(src, smaller(e + kAhead<kBytes>, end)) * stride;
#pragma GCC unroll 16
      for (int b = 0; b < kBytes; b += 64) prefetch(reinterpret_cast<const char*>(later) + b);
    }
    const T* row = x + row_of(src, e) * stride;
    V scalar = {};
    if constexpr (M == kScalar) scalar = broadcast<A, L>(*weight);
#pragma GCC unroll 16
    for (int k = 0; k < NV; ++k) {
      V v = load<L>(row + (k == NV - 1 ? last : k * L));
      if constexpr (M == kScalar) v = v * scalar;
      if constexpr (M == kBroadcast) v = v * broadcast<A, L>(weight[head[k]]);
      if constexpr (M == kShuffle) v = v * shuffle<L>(load<L>(weight + head[k]), lane[k]);
      acc[k] = R::step(acc[k], v);
    }
  }
  const auto offset = [&](int k) { return column + (k == NV - 1 ? last : k * L); };
  if (span.raw) {
    for (int k = 0; k < NV; ++k) store<L>(static_cast<A*>(out) + offset(k), acc[k]);
    return;
  }
  const V count = broadcast<A, L>(static_cast<A>(e1 - e0));
  for (int k = 0; k < NV; ++k) {
    if (__is_same(R, Sum) && span.mean) acc[k] = acc[k] / count;
    store<L>(static_cast<T*>(out) + offset(k), acc[k]);
  }
}

// All columns of a row, in as few passes over its edges as registers allow.
template <class T, class I, class R, int M>
FG_NOINLINE void span_columns(const Span& span, int64_t e0, int64_t e1, const void* given,
                              int64_t weight_stride, void* out) {
  using A = accum<T>;
  constexpr int L = kLanes<A>;
  constexpr bool kManySizes = __is_same(R, Sum) && M != kShuffle;
  constexpr bool kSomeSizes = __is_same(R, Sum) || (M == kNone && !__is_same(R, Mul));
  const A* weight = static_cast<const A*>(given);
#define FG_BLOCK(LANES, COUNT) \
  block<T, I, R, M, LANES, COUNT>(span, e0, e1, column, weight, weight_stride, out)
  int64_t column = 0;
  if (span.width >= L) {
    int64_t left = (span.width + L - 1) / L;
    while (left > 0) {
      int64_t taken = 1;
      if (kManySizes && kMaxVectors == 16 && left >= 16) {
        if constexpr (kManySizes && kMaxVectors == 16) FG_BLOCK(L, 16);
        taken = 16;
      } else if (kSomeSizes && left >= 8) {
        if constexpr (kSomeSizes) FG_BLOCK(L, 8);
        taken = 8;
      } else if (kManySizes && left >= 6) {
        if constexpr (kManySizes) FG_BLOCK(L, 6);
        taken = 6;
      } else if (left >= 4) {
        FG_BLOCK(L, 4);
        taken = 4;
      } else if (kManySizes && left == 3) {
        if constexpr (kManySizes) FG_BLOCK(L, 3);
        taken = 3;
      } else if (kSomeSizes && left >= 2) {
        if constexpr (kSomeSizes) FG_BLOCK(L, 2);
        taken = 2;
      } else {
        FG_BLOCK(L, 1);
      }
      left -= taken;
      column += taken * L;
    }
    return;
  }
  if constexpr (L > 8) {
    if (span.width >= 8) return span.width == 8 ? FG_BLOCK(8, 1) : FG_BLOCK(8, 2);
  }
  if constexpr (L > 4) {
    if (span.width >= 4) return span.width == 4 ? FG_BLOCK(4, 1) : FG_BLOCK(4, 2);
  }
  if constexpr (L > 2) {
    if (span.width >= 2) return span.width == 2 ? FG_BLOCK(2, 1) : FG_BLOCK(2, 2);
  }
  if (span.width == 1) FG_BLOCK(1, 1);
#undef FG_BLOCK
}

template <class T>
FG_NOINLINE void fill(T* out, int64_t count, accum<T> value) {
  for (int64_t i = 0; i < count; ++i) store<1>(out + i, broadcast<accum<T>, 1>(value));
}

// The lanes of a vector of columns: of the widest vector that fits.
int64_t lanes_for(int dtype, int64_t width) {
  int64_t lanes = kVectorBytes / accumulator_bytes(dtype);
  while (lanes > 1 && lanes > width) lanes /= 2;
  return lanes;
}

template <class T>
FG_NOINLINE void widen(const T* from, int64_t count, accum<T>* to) {
  constexpr int L = kLanes<accum<T>>;
  int64_t i = 0;
  for (; i + L <= count; i += L) store<L>(to + i, load<L>(from + i));
  for (; i < count; ++i) store<1>(to + i, load<1>(from + i));
}

// Reductions other than a sum are rare with a weight: they share the most general way to get it.
int mode_of(const ReduceArgs& args) {
  if (args.weight == nullptr) return kNone;
  const bool sums = args.reduce == kSum || args.reduce == kMean;
  return sums ? weight_mode(args.dtype, args.heads, args.channels) : kShuffle;
}

Span span_of(const ReduceArgs& args, void* scratch) {
  LaneMap* lanes = static_cast<LaneMap*>(scratch);
  if (mode_of(args) >= kBroadcast) fill_lane_map(args.dtype, args.width(), args.channels, lanes);
  return {args.x.data,  args.x.stride, args.edges.src,       args.edges.count(),
          args.width(), lanes,         args.reduce == kMean, false};
}

template <class T, class I, class R, int M>
struct ReduceLoop {
  // The weights of edges [e0, e1), as accumulators; copied where they must be widened or read past their end.
  static const accum<T>* weights(const ReduceArgs& args, int64_t e0, int64_t e1, void* scratch) {
    if constexpr (M == kNone) return nullptr;
    const T* given = static_cast<const T*>(args.weight) + e0 * args.heads;
    if constexpr (M != kShuffle && __is_same(T, accum<T>)) return given;
    char* after = static_cast<char*>(scratch) + lane_map_bytes(args.dtype, args.width());
    widen(given, (e1 - e0) * args.heads, reinterpret_cast<accum<T>*>(after));
    return reinterpret_cast<accum<T>*>(after);
  }

  static void rows(const ReduceArgs& args, int64_t r0, int64_t r1, void* scratch) {
    const Span span = span_of(args, scratch);
    const int64_t* rowptr = args.edges.rowptr;
    for (int64_t r = r0; r < r1; ++r) {
      const int64_t e0 = rowptr[r] - rowptr[0], e1 = rowptr[r + 1] - rowptr[0];
      T* out = static_cast<T*>(args.out) + r * args.out_stride;
      if (e0 == e1) {
        fill(out, span.width, R::kEmptyIsOne ? 1 : 0);
        continue;
      }
      span_columns<T, I, R, M>(span, e0, e1, weights(args, e0, e1, scratch), args.heads, out);
    }
  }

  static void part(const ReduceArgs& args, int64_t e0, int64_t e1, void* partial, void* scratch) {
    Span span = span_of(args, scratch);
    span.raw = true;
    span_columns<T, I, R, M>(span, e0, e1, weights(args, e0, e1, scratch), args.heads, partial);
  }
};

struct Loops {
  void (*rows)(const ReduceArgs&, int64_t, int64_t, void*) = nullptr;
  void (*part)(const ReduceArgs&, int64_t, int64_t, void*, void*) = nullptr;
  SpanFn span = nullptr;
};

template <class T, class I, class R, int M>
Loops loops() {
  return {ReduceLoop<T, I, R, M>::rows, ReduceLoop<T, I, R, M>::part, span_columns<T, I, R, M>};
}

template <class T, class I, class R>
Loops choose_mode(int mode) {
  if (mode == kNone) return loops<T, I, R, kNone>();
  if constexpr (__is_same(I, Identity)) {
    return {};
  } else if constexpr (__is_same(R, Sum)) {
    return mode == kScalar      ? loops<T, I, R, kScalar>()
           : mode == kBroadcast ? loops<T, I, R, kBroadcast>()
                                : loops<T, I, R, kShuffle>();
  } else {
    return loops<T, I, R, kShuffle>();
  }
}

template <class T, class I>
Loops choose_reduce(int reduce, int mode) {
  switch (reduce) {
    case kMax:
      return choose_mode<T, I, Max>(mode);
    case kMin:
      return choose_mode<T, I, Min>(mode);
    case kMul:
      return choose_mode<T, I, Mul>(mode);
    default:
      return choose_mode<T, I, Sum>(mode);
  }
}

template <class T>
Loops choose_index(int index, int reduce, int mode) {
  switch (index) {
    case kInt32:
      return choose_reduce<T, int32_t>(reduce, mode);
    case kInt64:
      return choose_reduce<T, int64_t>(reduce, mode);
    default:
      return choose_reduce<T, Identity>(reduce, mode);
  }
}

Loops choose(int dtype, int index, int reduce, int mode) {
  switch (dtype) {
    case kFloat32:
      return choose_index<float>(index, reduce, mode);
    case kFloat64:
      return choose_index<double>(index, reduce, mode);
    case kBFloat16:
      return choose_index<bfloat16>(index, reduce, mode);
    default:
      return choose_index<float16>(index, reduce, mode);
  }
}

template <class T, class R>
void merge(const ReduceArgs& args, int64_t row, const accum<T>* partials, int64_t parts) {
  const int64_t* rowptr = args.edges.rowptr;
  T* out = static_cast<T*>(args.out) + row * args.out_stride;
  for (int64_t c = 0; c < args.width(); ++c) {
    Vec<accum<T>, 1> acc = load<1>(partials + c);
    for (int64_t p = 1; p < parts; ++p) acc = R::step(acc, load<1>(partials + p * args.width() + c));
    if (args.reduce == kMean) acc = acc / static_cast<accum<T>>(rowptr[row + 1] - rowptr[row]);
    store<1>(out + c, acc);
  }
}

template <class T>
void merge_reduce(const ReduceArgs& args, int64_t row, const void* partials, int64_t parts) {
  const accum<T>* given = static_cast<const accum<T>*>(partials);
  switch (args.reduce) {
    case kMax:
      return merge<T, Max>(args, row, given, parts);
    case kMin:
      return merge<T, Min>(args, row, given, parts);
    case kMul:
      return merge<T, Mul>(args, row, given, parts);
    default:
      return merge<T, Sum>(args, row, given, parts);
  }
}

}  // namespace

SpanFn weighted_sum(int dtype, int index, int mode) {
  return choose(dtype, index, kSum, mode).span;
}

Mode weight_mode(int dtype, int64_t heads, int64_t channels) {
  if (heads == 1) return kScalar;
  const int64_t lanes = lanes_for(dtype, heads * channels);
  return channels % lanes == 0 ? kBroadcast : kShuffle;
}

int64_t lane_map_bytes(int dtype, int64_t width) {
  const int64_t lanes = lanes_for(dtype, width);
  return ((width + lanes - 1) / lanes * static_cast<int64_t>(sizeof(LaneMap)) + 63) / 64 * 64;
}

void fill_lane_map(int dtype, int64_t width, int64_t channels, LaneMap* lanes) {
  const int64_t count = lanes_for(dtype, width);
  for (int64_t v = 0; v * count < width; ++v) {
    const int64_t column = smaller(v * count, width - count);
    lanes[v].first = column / channels;
    for (int64_t i = 0; i < count; ++i)
      lanes[v].lane[i] = static_cast<int32_t>((column + i) / channels - lanes[v].first);
  }
}

int64_t reduce_scratch(const ReduceArgs& args, int64_t edges) {
  if (args.weight == nullptr) return 0;
  const int64_t weights = edges * args.heads * accumulator_bytes(args.dtype);
  return lane_map_bytes(args.dtype, args.width()) + weights + 2 * kVectorBytes;
}

void reduce_rows(const ReduceArgs& args, int64_t r0, int64_t r1, void* scratch) {
  choose(args.dtype, args.edges.index, args.reduce, mode_of(args)).rows(args, r0, r1, scratch);
}

void reduce_part(const ReduceArgs& args, int64_t e0, int64_t e1, void* partial, void* scratch) {
  choose(args.dtype, args.edges.index, args.reduce, mode_of(args)).part(args, e0, e1, partial, scratch);
}

void reduce_merge(const ReduceArgs& args, int64_t row, const void* partials, int64_t parts) {
  switch (args.dtype) {
    case kFloat32:
      return merge_reduce<float>(args, row, partials, parts);
    case kFloat64:
      return merge_reduce<double>(args, row, partials, parts);
    case kBFloat16:
      return merge_reduce<bfloat16>(args, row, partials, parts);
    default:
      return merge_reduce<float16>(args, row, partials, parts);
  }
}

}  // namespace FG_ISA
}  // namespace fg

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

// Rows that are reduced, and where to: row r has the edges rowptr[r] - base up to rowptr[r + 1] - base.
struct Rows {
  const int64_t* rowptr;
  int64_t base, count;
  void* out;
  int64_t out_stride;  // elements

  int64_t begin(int64_t r) const { return rowptr[r] - base; }
  template <class A>
  A* at(int64_t r) const {
    return static_cast<A*>(out) + r * out_stride;
  }
};

// NV vectors of L columns from `column` on; the last one is moved back to end where the row ends. `weight` is
// the first row's first edge's.
template <class T, class I, class R, int M, int L, int NV>
FG_NOINLINE void block(const Span& span, const Rows& rows, int64_t column, const accum<T>* weight,
                       int64_t weight_stride) {
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
  const auto offset = [&](int k) FG_LAMBDA { return column + (k == NV - 1 ? last : k * L); };
  for (int64_t r = 0; r < rows.count; ++r) {
    const int64_t e0 = rows.begin(r), e1 = rows.begin(r + 1);
    V acc[NV];
    for (int k = 0; k < NV; ++k)
      acc[k] = broadcast<A, L>(e0 < e1 ? R::template start<A> : static_cast<A>(R::kEmptyIsOne));
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
    if (span.raw) {
      for (int k = 0; k < NV; ++k) store<L>(rows.at<A>(r) + offset(k), acc[k]);
      continue;
    }
    const V count = broadcast<A, L>(static_cast<A>(larger<int64_t>(e1 - e0, 1)));
    for (int k = 0; k < NV; ++k) {
      if (__is_same(R, Sum) && span.mean) acc[k] = acc[k] / count;
      store<L>(rows.at<T>(r) + offset(k), acc[k]);
    }
  }
}

// A single column: four edges at a time, each with a result of its own, so that none waits for the one
// before.
template <class T, class I, class R, int M>
FG_NOINLINE void one_column(const Span& span, const Rows& rows, const accum<T>* weight,
                            int64_t weight_stride) {
  using A = accum<T>;
  const T* x = static_cast<const T*>(span.x);
  const I* src = static_cast<const I*>(span.src);
  const int64_t stride = span.stride, first = rows.begin(0);
  const auto value = [&](int64_t e) FG_LAMBDA {
    const A v = element(x + row_of(src, e) * stride);
    return M == kNone ? v : v * weight[(e - first) * weight_stride];
  };
  for (int64_t r = 0; r < rows.count; ++r) {
    const int64_t e0 = rows.begin(r), e1 = rows.begin(r + 1);
    A acc = e0 < e1 ? R::template start<A> : static_cast<A>(R::kEmptyIsOne);
    int64_t e = e0;
    if (e + 4 <= e1) {
      A b = acc, c = acc, d = acc;
      for (; e + 4 <= e1; e += 4) {
        acc = R::step(acc, value(e));
        b = R::step(b, value(e + 1));
        c = R::step(c, value(e + 2));
        d = R::step(d, value(e + 3));
      }
      acc = R::step(R::step(acc, b), R::step(c, d));
    }
    for (; e < e1; ++e) acc = R::step(acc, value(e));
    if (span.raw) {
      *rows.at<A>(r) = acc;
      continue;
    }
    if (__is_same(R, Sum) && span.mean) acc = acc / static_cast<A>(larger<int64_t>(e1 - e0, 1));
    store<1>(rows.at<T>(r), broadcast<A, 1>(acc));
  }
}

// The vectors that the next block takes, of those that are left: of the sizes that this kernel is made for.
template <class R, int M>
struct Sizes {
  static constexpr bool kMany = __is_same(R, Sum) && M != kShuffle;
  static constexpr bool kSome = __is_same(R, Sum) || (M == kNone && !__is_same(R, Mul));
  static int64_t next(int64_t left) {
    if (kMany && kMaxVectors == 16 && left >= 16) return 16;
    if (kSome && left >= 8) return 8;
    if (kMany && left >= 6) return 6;
    if (left >= 4) return 4;
    if (kMany && left == 3) return 3;
    return kSome && left >= 2 ? 2 : 1;
  }
};

constexpr int64_t kWideBytes = 2304;  // of a row that is read from end to end (docs/log.md)

// A wide row: its result stays in L1 while edges go by, four at a time, each source row read from end to end,
// as the processor's own prefetch likes it. For types that are summed up as what they are.
template <class T, class I, class R, int M, int G>
FG_INLINE void fold_edges(const Span& span, int64_t e, bool first, const T* weight, int64_t weight_stride,
                          T* out) {
  constexpr int L = kLanes<T>;
  const T* x = static_cast<const T*>(span.x);
  const I* src = static_cast<const I*>(span.src);
  const T *row[G], *later[G];
  T scale[G];
  for (int g = 0; g < G; ++g) {
    row[g] = x + row_of(src, e + g) * span.stride;
    later[g] = x + row_of(src, smaller(e + G + g, span.edges - 1)) * span.stride;
    scale[g] = M == kNone ? T(1) : weight[g * weight_stride];
  }
  int64_t c = 0;
  for (; c + L <= span.width; c += L) {
    Vec<T, L> acc = first ? broadcast<T, L>(R::template start<T>) : load<L>(out + c);
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      if constexpr (!__is_same(I, Identity)) prefetch(later[g] + c);
      const Vec<T, L> v = load<L>(row[g] + c);
      acc = R::step(acc, M == kNone ? v : v * broadcast<T, L>(scale[g]));
    }
    store<L>(out + c, acc);
  }
  for (; c < span.width; ++c) {
    T acc = first ? R::template start<T> : out[c];
    for (int g = 0; g < G; ++g) acc = R::step(acc, M == kNone ? row[g][c] : row[g][c] * scale[g]);
    out[c] = acc;
  }
}

template <class T, class I, class R, int M>
FG_NOINLINE void wide_row(const Span& span, int64_t e0, int64_t e1, const T* weight, int64_t weight_stride,
                          T* out) {
  int64_t e = e0;
  for (; e + 4 <= e1; e += 4, weight += M == kNone ? 0 : 4 * weight_stride)
    fold_edges<T, I, R, M, 4>(span, e, e == e0, weight, weight_stride, out);
  for (; e < e1; ++e, weight += M == kNone ? 0 : weight_stride)
    fold_edges<T, I, R, M, 1>(span, e, e == e0, weight, weight_stride, out);
  if (span.mean && !span.raw)
    for (int64_t c = 0; c < span.width; ++c) out[c] /= static_cast<T>(e1 - e0);
}

// All columns, in as few passes over the edges of a row as registers allow; row by row where that is more
// than one, so that a row is still in cache for the next.
template <class T, class I, class R, int M>
FG_NOINLINE void columns(const Span& span, const Rows& rows, const accum<T>* weight, int64_t weight_stride) {
  constexpr int L = kLanes<accum<T>>;
  using S = Sizes<R, M>;
#define FG_BLOCK(LANES, COUNT) block<T, I, R, M, LANES, COUNT>(span, rows, column, weight, weight_stride)
  int64_t column = 0;
  if (span.width >= L) {
    int64_t left = (span.width + L - 1) / L;
    if constexpr (__is_same(T, accum<T>) && (M == kNone || M == kScalar)) {
      if (rows.count == 1 && left * kVectorBytes >= kWideBytes && rows.begin(0) < rows.begin(1))
        return wide_row<T, I, R, M>(span, rows.begin(0), rows.begin(1), weight, weight_stride, rows.at<T>(0));
    }
    if (rows.count > 1 && S::next(left) < left) {
      for (int64_t r = 0; r < rows.count; ++r) {
        const Rows one = {rows.rowptr + r, rows.base, 1, rows.at<T>(r), 0};
        columns<T, I, R, M>(span, one, weight, weight_stride);
        if (M != kNone) weight += (one.begin(1) - one.begin(0)) * weight_stride;
      }
      return;
    }
    while (left > 0) {
      const int64_t taken = S::next(left);
      switch (taken) {
        case 16:
          if constexpr (S::kMany && kMaxVectors == 16) FG_BLOCK(L, 16);
          break;
        case 8:
          if constexpr (S::kSome) FG_BLOCK(L, 8);
          break;
        case 6:
          if constexpr (S::kMany) FG_BLOCK(L, 6);
          break;
        case 4:
          FG_BLOCK(L, 4);
          break;
        case 3:
          if constexpr (S::kMany) FG_BLOCK(L, 3);
          break;
        case 2:
          if constexpr (S::kSome) FG_BLOCK(L, 2);
          break;
        default:
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
  if (span.width == 1) one_column<T, I, R, M>(span, rows, weight, weight_stride);
#undef FG_BLOCK
}

// One row of edges [e0, e1), as `SpanFn`.
template <class T, class I, class R, int M>
void span_columns(const Span& span, int64_t e0, int64_t e1, const void* weight, int64_t weight_stride,
                  void* out) {
  const int64_t rowptr[] = {e0, e1};
  columns<T, I, R, M>(span, {rowptr, 0, 1, out, 0}, static_cast<const accum<T>*>(weight), weight_stride);
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
  // Weights that are accumulators already, and are not read past their end.
  static constexpr bool kGiven = M == kNone || (M != kShuffle && __is_same(T, accum<T>));

  // The weights of edges [e0, e1), as accumulators; copied where they must be widened or read past their end.
  static const accum<T>* weights(const ReduceArgs& args, int64_t e0, int64_t e1, void* scratch) {
    if constexpr (M == kNone) {
      return nullptr;
    } else if constexpr (kGiven) {
      return static_cast<const T*>(args.weight) + e0 * args.heads;
    } else {
      const T* given = static_cast<const T*>(args.weight) + e0 * args.heads;
      char* after = static_cast<char*>(scratch) + lane_map_bytes(args.dtype, args.width());
      widen(given, (e1 - e0) * args.heads, reinterpret_cast<accum<T>*>(after));
      return reinterpret_cast<accum<T>*>(after);
    }
  }

  static void rows(const ReduceArgs& args, int64_t r0, int64_t r1, void* scratch) {
    const Span span = span_of(args, scratch);
    const int64_t* rowptr = args.edges.rowptr;
    const int64_t step = kGiven ? r1 - r0 : 1;
    for (int64_t r = r0; r < r1; r += step) {
      T* out = static_cast<T*>(args.out) + r * args.out_stride;
      const Rows rows = {rowptr + r, rowptr[0], step, out, args.out_stride};
      const accum<T>* weight = weights(args, rows.begin(0), rows.begin(step), scratch);
      columns<T, I, R, M>(span, rows, weight, args.heads);
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

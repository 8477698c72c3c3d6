// Attention and edge softmax. One row at a time: scores into a buffer, maximum, exp, sum, weights, then the
// weighted sum of span.h over the same edges. The buffer holds one row per edge of `padded_heads`
// accumulators.
#include "cpu/kernels/span.h"

namespace fg {
namespace FG_ISA {
namespace {

constexpr int64_t kScoresAhead = 16;
constexpr int kPrefetchBytes = 1024;  // of a key row; the hardware goes on from there

// A power of two below a vector, else whole vectors: then the columns of a vector repeat with the heads.
int64_t padded_heads(int dtype, int64_t heads) {
  const int64_t lanes = kVectorBytes / accumulator_bytes(dtype);
  if (heads > lanes) return (heads + lanes - 1) / lanes * lanes;
  int64_t padded = 1;
  while (padded < heads) padded *= 2;
  return padded;
}

FG_INLINE int64_t edge_end(const Edges& edges) {
  return edges.rowptr[edges.rows] - edges.rowptr[0];
}

// ---- scores ----

template <class V>
FG_INLINE V leaky_relu(V v, V slope) {
  return (v > 0) ? v : v * slope;
}

// score[e, h] given, or score_src[src[e], h] + score_dst[i, h] (+ score_edge[e, h]) through leaky_relu.
template <class T, class I, int L>
void head_scores(const AttendArgs& args, int64_t row, int64_t e0, int64_t e1, accum<T>* buffer) {
  using A = accum<T>;
  using V = Vec<A, L>;
  const int64_t heads = args.heads, padded = padded_heads(args.dtype, heads), end = edge_end(args.edges) - 1;
  const T* key = static_cast<const T*>(args.key.data);
  const T* query = static_cast<const T*>(args.query.data) + row * args.query.stride;
  const T* edge = static_cast<const T*>(args.edge.data);
  const I* src = static_cast<const I*>(args.edges.src);
  const V slope = broadcast<A, L>(static_cast<A>(args.negative_slope));
  const auto get = [](const T* p, int64_t n) { return n >= L ? load<L>(p) : load_some<L>(p, n); };
  for (int64_t h = 0; h < padded; h += L) {
    const int64_t n = heads - h;
    A* out = buffer + h;
    if (args.score == kExplicit) {
      for (int64_t e = e0; e < e1; ++e, out += padded) store<L>(out, get(edge + e * args.edge.stride + h, n));
      continue;
    }
    const V mine = get(query + h, n);
    for (int64_t e = e0; e < e1; ++e, out += padded) {
      prefetch(key + row_of(src, smaller(e + kScoresAhead, end)) * args.key.stride + h);
      V v = get(key + row_of(src, e) * args.key.stride + h, n) + mine;
      if (edge != nullptr) v = v + get(edge + e * args.edge.stride + h, n);
      store<L>(out, leaky_relu(v, slope));
    }
  }
}

// sum_c att[h, c] * leaky_relu(query[i] + key[src[e]] (+ edge[e]))[h, c], or scale * sum_c query[i] *
// key[src[e]].
template <class T, class I, int KIND, int L>
void pair_scores(const AttendArgs& args, int64_t row, int64_t e0, int64_t e1, accum<T>* buffer) {
  using A = accum<T>;
  using V = Vec<A, L>;
  const int64_t heads = args.heads, channels = args.key_channels, tail = channels % L,
                whole = channels - tail;
  const int64_t padded = padded_heads(args.dtype, heads), end = edge_end(args.edges) - 1;
  const int64_t row_bytes = heads * channels * static_cast<int64_t>(sizeof(T));
  const T* query = static_cast<const T*>(args.query.data) + row * args.query.stride;
  const T* att = static_cast<const T*>(args.att);
  const I* src = static_cast<const I*>(args.edges.src);
  const V slope = broadcast<A, L>(static_cast<A>(args.negative_slope));
  Vec<int_like<A>, L> number;
  for (int i = 0; i < L; ++i) number[i] = i;
  const auto in_tail = number >= (number * 0 + static_cast<int_like<A>>(L - tail));
  for (int64_t e = e0; e < e1; ++e, buffer += padded) {
    const char* later = reinterpret_cast<const char*>(
        static_cast<const T*>(args.key.data) + row_of(src, smaller(e + kScoresAhead, end)) * args.key.stride);
    for (int64_t b = 0; b < smaller<int64_t>(row_bytes, kPrefetchBytes); b += 64) prefetch(later + b);
    const T* key = static_cast<const T*>(args.key.data) + row_of(src, e) * args.key.stride;
    const T* edge = static_cast<const T*>(args.edge.data);
    if (edge != nullptr) edge += e * args.edge.stride;
    const auto product = [&](int64_t c) {
      V v = load<L>(key + c), q = load<L>(query + c);
      if constexpr (KIND == kDot) return v * q;
      v = v + q;
      if (edge != nullptr) v = v + load<L>(edge + c);
      return leaky_relu(v, slope) * load<L>(att + c);
    };
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t first = h * channels;
      V total = {};
      for (int64_t c = 0; c < whole; c += L) total = total + product(first + c);
      if (tail != 0) {
        const V some = product(first + channels - L);
        total = total + (in_tail ? some : V{});
      }
      buffer[h] = sum_lanes<A, L>(total) * (KIND == kDot ? static_cast<A>(args.scale) : 1);
    }
    for (int64_t h = heads; h < padded; ++h) buffer[h] = 0;
  }
}

template <class T>
using ScoreFn = void (*)(const AttendArgs&, int64_t row, int64_t e0, int64_t e1, accum<T>* buffer);

// Call pick.template at<L>() with the widest L of lanes that `size` fills.
template <int L, class Pick>
FG_INLINE auto pick_lanes(int64_t size, Pick pick) {
  if constexpr (L > 1) {
    if (size < L) return pick_lanes<L / 2>(size, pick);
  }
  return pick.template at<L>();
}

template <class T, class I>
struct PickHeads {
  template <int L>
  ScoreFn<T> at() const {
    return head_scores<T, I, L>;
  }
};
template <class T, class I, int KIND>
struct PickPairs {
  template <int L>
  ScoreFn<T> at() const {
    return pair_scores<T, I, KIND, L>;
  }
};

template <class T, class I>
ScoreFn<T> choose_scores(const AttendArgs& args) {
  constexpr int L = kLanes<accum<T>>;
  if (args.score == kDot) return pick_lanes<L>(args.key_channels, PickPairs<T, I, kDot>());
  if constexpr (!__is_same(I, Identity)) {
    if (args.score == kGatV2) return pick_lanes<L>(args.key_channels, PickPairs<T, I, kGatV2>());
  }
  return pick_lanes<L>(padded_heads(args.dtype, args.heads), PickHeads<T, I>());
}

template <class T>
ScoreFn<T> choose_scores(const AttendArgs& args) {
  if (args.edges.index == kInt32) return choose_scores<T, int32_t>(args);
  if (args.edges.index == kInt64) return choose_scores<T, int64_t>(args);
  return choose_scores<T, Identity>(args);
}

// ---- softmax of the buffer ----

// The buffer as `rows` rows of `period` columns, whole vectors; the last row is filled up with -infinity.
struct Shape {
  int64_t padded, period, rows;
};

template <class A>
FG_INLINE Shape fill_up(A* buffer, int64_t edges, int64_t padded) {
  const int64_t period = larger<int64_t>(padded, kLanes<A>), rows = (edges * padded + period - 1) / period;
  for (int64_t i = edges * padded; i < rows * period; ++i) buffer[i] = -kInfinity<A>;
  return {padded, period, rows};
}

template <class A>
FG_INLINE Vec<A, kLanes<A>> column_max(const A* column, Shape shape) {
  constexpr int L = kLanes<A>;
  auto most = broadcast<A, L>(-kInfinity<A>);
  for (int64_t r = 0; r < shape.rows; ++r) {
    const auto v = load<L>(column + r * shape.period);
    most = (v > most) ? v : most;
  }
  return fold<A, L>(most, static_cast<int>(smaller<int64_t>(shape.padded, L)),
                    [](auto a, auto b) { return (a > b) ? a : b; });
}

// column = exp(column - offset); the sum over the edges.
template <class A>
FG_INLINE Vec<A, kLanes<A>> column_exp(A* column, Shape shape, Vec<A, kLanes<A>> offset) {
  constexpr int L = kLanes<A>;
  Vec<A, L> total = {};
  for (int64_t r = 0; r < shape.rows; ++r) {
    const auto power = exp_nonpositive<L>(load<L>(column + r * shape.period) - offset);
    store<L>(column + r * shape.period, power);
    total = total + power;
  }
  return fold<A, L>(total, static_cast<int>(smaller<int64_t>(shape.padded, L)),
                    [](auto a, auto b) { return a + b; });
}

template <class A>
FG_INLINE void column_divide(A* column, Shape shape, Vec<A, kLanes<A>> by) {
  constexpr int L = kLanes<A>;
  for (int64_t r = 0; r < shape.rows; ++r)
    store<L>(column + r * shape.period, load<L>(column + r * shape.period) / by);
}

constexpr double kEpsilon = 1e-16;

// Scores of a whole row -> its softmax.
template <class A>
FG_NOINLINE void softmax(A* buffer, int64_t edges, int64_t padded) {
  const Shape shape = fill_up(buffer, edges, padded);
  for (int64_t c = 0; c < shape.period; c += kLanes<A>) {
    const auto total = column_exp(buffer + c, shape, column_max(buffer + c, shape));
    column_divide(buffer + c, shape, total + static_cast<A>(kEpsilon));
  }
}

// Scores of a part of a row -> its maximum and sum per head. A part of which all scores are -infinity sums to
// 0.
template <class A>
FG_NOINLINE void softmax_stats(A* buffer, int64_t edges, int64_t padded, A* most, A* total) {
  constexpr int L = kLanes<A>;
  const Shape shape = fill_up(buffer, edges, padded);
  for (int64_t c = 0; c < shape.period; c += L) {
    const auto found = column_max(buffer + c, shape);
    const auto sum = column_exp(buffer + c, shape, (found == -kInfinity<A>) ? Vec<A, L>{} : found);
    for (int64_t i = 0; i < L && c + i < padded; ++i) {
      most[c + i] = found[i];
      total[c + i] = sum[i];
    }
  }
}

// Scores of a part of a row -> its softmax, given the row's maximum and sum per head.
template <class A>
FG_NOINLINE void softmax_given(A* buffer, int64_t edges, int64_t padded, const A* most, const A* total) {
  constexpr int L = kLanes<A>;
  const Shape shape = fill_up(buffer, edges, padded);
  for (int64_t c = 0; c < shape.period; c += L) {
    Vec<A, L> offset, by;
    for (int i = 0; i < L; ++i) {
      offset[i] = most[(c + i) % padded];
      by[i] = total[(c + i) % padded];
    }
    column_exp(buffer + c, shape, offset);
    column_divide(buffer + c, shape, by);
  }
}

// ---- rows and parts ----

template <class T>
struct Attend {
  using A = accum<T>;

  const AttendArgs& args;
  const int64_t padded;
  const ScoreFn<T> scores;
  SpanFn sum = nullptr;
  Span span = {};
  A* buffer;

  Attend(const AttendArgs& given, void* scratch)
      : args(given), padded(padded_heads(given.dtype, given.heads)), scores(choose_scores<T>(given)) {
    if (args.value.data == nullptr) {
      buffer = static_cast<A*>(scratch);
      return;
    }
    LaneMap* lanes = static_cast<LaneMap*>(scratch);
    buffer = reinterpret_cast<A*>(static_cast<char*>(scratch) + lane_map_bytes(args.dtype, args.width()));
    const int mode = weight_mode(args.dtype, args.heads, args.channels);
    if (mode >= kBroadcast) fill_lane_map(args.dtype, args.width(), args.channels, lanes);
    sum = weighted_sum(args.dtype, args.edges.index, mode);
    span = {args.value.data, args.value.stride,
            args.edges.src,  args.edges.count(),
            args.width(),    lanes,
            false,           false};
  }

  // The buffer's weights of edges [e0, e1) -> out [E, H].
  void write_weights(int64_t e0, int64_t e1) const {
    const A* from = buffer;
    for (int64_t e = e0; e < e1; ++e, from += padded) {
      T* out = static_cast<T*>(args.out) + e * args.out_stride;
      constexpr int L = kLanes<A>;
      int64_t h = 0;
      for (; h + L <= args.heads; h += L) store<L>(out + h, load<L>(from + h));
      for (; h < args.heads; ++h) store<1>(out + h, load<1>(from + h));
    }
  }

  void row(int64_t r) const {
    const int64_t* rowptr = args.edges.rowptr;
    const int64_t e0 = rowptr[r] - rowptr[0], e1 = rowptr[r + 1] - rowptr[0];
    T* out = static_cast<T*>(args.out) + r * args.out_stride;
    if (e0 == e1) {
      if (args.value.data != nullptr) __builtin_memset(out, 0, static_cast<size_t>(args.width()) * sizeof(T));
      return;
    }
    scores(args, r, e0, e1, buffer);
    softmax(buffer, e1 - e0, padded);
    if (args.value.data == nullptr) return write_weights(e0, e1);
    sum(span, e0, e1, buffer, padded, out);
  }

  // A part of a row: its stats, and with a value the sum under weights not yet divided.
  void part(int64_t r, int64_t e0, int64_t e1, A* stats, void* partial) {
    scores(args, r, e0, e1, buffer);
    softmax_stats(buffer, e1 - e0, padded, stats, stats + padded);
    if (args.value.data == nullptr) return;
    span.raw = true;
    sum(span, e0, e1, buffer, padded, partial);
  }

  // The scores themselves -> out [E, H].
  void write_scores(int64_t r, int64_t e0, int64_t e1) const {
    scores(args, r, e0, e1, buffer);
    write_weights(e0, e1);
  }

  // A part's weights, given the stats of the whole row.
  void weights(int64_t r, int64_t e0, int64_t e1, const A* total) const {
    scores(args, r, e0, e1, buffer);
    softmax_given(buffer, e1 - e0, padded, total, total + padded);
    write_weights(e0, e1);
  }
};

// What a part's sums must be multiplied by when the row's maximum is `most`. Without a finite maximum
// anywhere the softmax is NaN, as exp(-infinity + infinity) is.
template <class A>
FG_INLINE A rescale(A part_most, A most) {
  if (part_most == -kInfinity<A> && most != -kInfinity<A>) return 0;
  return exp_nonpositive<1>(broadcast<A, 1>(part_most - most))[0];
}

// The parts' maxima and sums -> the row's.
template <class A>
void combine(const A* stats, int64_t parts, int64_t padded, A* total) {
  for (int64_t h = 0; h < padded; ++h) {
    A most = -kInfinity<A>, sum = 0;
    for (int64_t p = 0; p < parts; ++p) most = larger(most, stats[p * 2 * padded + h]);
    for (int64_t p = 0; p < parts; ++p) {
      const A* part = stats + p * 2 * padded + h;
      sum += part[padded] * rescale(part[0], most);
    }
    total[h] = most;
    total[padded + h] = sum + static_cast<A>(kEpsilon);
  }
}

// The parts' sums -> the row; `stats` is overwritten with each part's factors.
template <class T>
void merge(const AttendArgs& args, int64_t row, accum<T>* stats, const accum<T>* partials, int64_t parts,
           accum<T>* total) {
  using A = accum<T>;
  const int64_t padded = padded_heads(args.dtype, args.heads);
  combine(stats, parts, padded, total);
  for (int64_t p = 0; p < parts; ++p)
    for (int64_t h = 0; h < padded; ++h) {
      A& factor = stats[p * 2 * padded + h];
      factor = rescale(factor, total[h]) / total[padded + h];
    }
  T* out = static_cast<T*>(args.out) + row * args.out_stride;
  for (int64_t h = 0; h < args.heads; ++h)
    for (int64_t c = h * args.channels; c < (h + 1) * args.channels; ++c) {
      A acc = 0;
      for (int64_t p = 0; p < parts; ++p) acc += partials[p * args.width() + c] * stats[p * 2 * padded + h];
      store<1>(out + c, broadcast<A, 1>(acc));
    }
}

}  // namespace

int64_t attend_scratch(const AttendArgs& args, int64_t edges) {
  const int64_t padded = padded_heads(args.dtype, args.heads);
  const int64_t lanes = args.value.data == nullptr ? 0 : lane_map_bytes(args.dtype, args.width());
  return lanes + edges * padded * accumulator_bytes(args.dtype) + 2 * kVectorBytes;
}

int64_t attend_stats_bytes(const AttendArgs& args) {
  return 2 * padded_heads(args.dtype, args.heads) * accumulator_bytes(args.dtype);
}

void attend_rows(const AttendArgs& args, int64_t r0, int64_t r1, void* scratch) {
  with_type(args.dtype, [&](auto type) {
    const Attend<decltype(type)> attend(args, scratch);
    for (int64_t r = r0; r < r1; ++r) attend.row(r);
  });
}

void attend_part(const AttendArgs& args, int64_t row, int64_t e0, int64_t e1, void* stats, void* partial,
                 void* scratch) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    Attend<T>(args, scratch).part(row, e0, e1, static_cast<accum<T>*>(stats), partial);
  });
}

void attend_merge(const AttendArgs& args, int64_t row, void* stats, const void* partials, int64_t parts,
                  void* total) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    using A = accum<T>;
    A* into = static_cast<A*>(total);
    if (args.value.data == nullptr)
      combine(static_cast<const A*>(stats), parts, padded_heads(args.dtype, args.heads), into);
    else
      merge<T>(args, row, static_cast<A*>(stats), static_cast<const A*>(partials), parts, into);
  });
}

void attend_weights(const AttendArgs& args, int64_t row, int64_t e0, int64_t e1, const void* total,
                    void* scratch) {
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    Attend<T>(args, scratch).weights(row, e0, e1, static_cast<const accum<T>*>(total));
  });
}

void attend_scores(const AttendArgs& args, int64_t row, int64_t e0, int64_t e1, void* scratch) {
  with_type(args.dtype, [&](auto type) { Attend<decltype(type)>(args, scratch).write_scores(row, e0, e1); });
}

}  // namespace FG_ISA
}  // namespace fg

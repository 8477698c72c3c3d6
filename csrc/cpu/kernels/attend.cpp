// Attention and edge softmax. One row at a time: scores into a buffer, maximum, exp, sum, weights, then the
// weighted sum of span.h over the same edges. The buffer holds one row per edge of `padded_heads`
// accumulators.
#include "cpu/kernels/scores.h"
#include "cpu/kernels/span.h"

namespace fg {
namespace FG_ISA {
namespace {

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
FG_NOINLINE void narrow(const accum<T>* from, int64_t count, T* to) {
  constexpr int L = kLanes<accum<T>>;
  int64_t i = 0;
  for (; i + L <= count; i += L) store<L>(to + i, load<L>(from + i));
  for (; i < count; ++i) store<1>(to + i, load<1>(from + i));
}

template <class T>
struct Attend {
  using A = accum<T>;

  const AttendArgs& args;
  const int64_t padded;
  const ScoreFn<T> scores;
  SpanFn sum = nullptr;
  Span span = {};
  A *buffer, *state = nullptr;  // `state` [padded, C], where heads share their rows

  Attend(const AttendArgs& given, void* scratch)
      : args(given), padded(padded_heads(given.dtype, given.heads)), scores(choose_scores<T>(given)) {
    if (args.value.data == nullptr) {
      buffer = static_cast<A*>(scratch);
      return;
    }
    if (args.shared) {
      state = static_cast<A*>(scratch);
      buffer = state + padded * args.channels;
      sum = shared_sum(args.dtype, args.edges.index, padded);
      span = {args.value.data, args.value.stride, args.edges.src, args.edges.count(),
              args.channels,   nullptr,           false,          true};
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
    if (!args.shared) return sum(span, e0, e1, buffer, padded, out);
    sum(span, e0, e1, buffer, padded, state);
    narrow<T>(state, args.width(), out);
  }

  // A part of a row: its stats, and with a value the sum under weights not yet divided.
  void part(int64_t r, int64_t e0, int64_t e1, A* stats, void* partial) {
    scores(args, r, e0, e1, buffer);
    softmax_stats(buffer, e1 - e0, padded, stats, stats + padded);
    if (args.value.data == nullptr) return;
    span.raw = true;
    if (!args.shared) return sum(span, e0, e1, buffer, padded, partial);
    sum(span, e0, e1, buffer, padded, state);
    __builtin_memcpy(partial, state, static_cast<size_t>(args.width()) * sizeof(A));
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
  int64_t before = 0;  // the buffer
  if (args.shared)
    before = padded * args.channels * accumulator_bytes(args.dtype);
  else if (args.value.data != nullptr)
    before = lane_map_bytes(args.dtype, args.width());
  return before + edges * padded * accumulator_bytes(args.dtype) + 2 * kVectorBytes;
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

// The scores of an attention: one row at a time into a buffer with a row per edge of `padded_heads`
// accumulators.
#pragma once

#include "cpu/kernels.h"
#include "cpu/kernels/vec.h"

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

}  // namespace
}  // namespace FG_ISA
}  // namespace fg

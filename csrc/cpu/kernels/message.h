// The message of an edge, vector by vector: what the operator writes and every reduction starts from.
#pragma once

#include "cpu/kernels.h"
#include "cpu/kernels/vec.h"

namespace fg {
namespace FG_ISA {

// The accumulators of dst[row, :], in `scratch` (of W accumulators, prepared once) where they are not there
// already; without dst what adds nothing.
void prepare_dst(const MessageArgs& args, void* scratch);
const void* row_dst(const MessageArgs& args, int64_t row, void* scratch);

// The messages of the edges [e0, e1) of one row, columns [column, end): edge e's go to out + (e - e0) *
// stride, each to its column, or where `slots` says so each vector to its place (see for_slots).
struct Tile {
  const void* dst;  // from column 0 on, as row_dst gives it
  int64_t e0, e1, column, end;
  void* out;
  int64_t stride;
  bool slots;
};

using TileFn = void (*)(const MessageArgs&, const Tile&);

// The loop that writes accumulators, for reductions, or elements of x's type.
TileFn accumulator_tile(const MessageArgs& args);
TileFn element_tile(const MessageArgs& args);

namespace {

// The lanes of a row's vectors. Few sizes, since each costs every loop once more.
FG_INLINE int64_t slot_lanes(int dtype, int64_t width) {
  const int64_t lanes = kVectorBytes / accumulator_bytes(dtype);
  return width >= lanes ? lanes : lanes > 4 && width >= 4 ? 4 : 1;
}

// Call f(c, place) for vectors at columns c that cover [column, end): the last is moved back to end there,
// and so holds some columns twice, but has a place of its own. `end` is a whole number of vectors or the last
// column.
template <int L, class F>
FG_INLINE void for_slots(int64_t column, int64_t end, F f) {
  for (int64_t place = column; place < end; place += L) f(smaller(place, end - L), place);
}

// Whether a message is no more than a sum of rows, perhaps through relu.
FG_INLINE bool is_plain(const MessageArgs& args) {
  return args.activation != kLeakyRelu && args.weight == nullptr && args.shift == 0;
}

// A branch that is always taken alike costs less than three copies of every loop.
FG_INLINE int64_t source(const Edges& edges, int64_t e) {
  if (edges.index == kInt32) return static_cast<const int32_t*>(edges.src)[e];
  return edges.index == kInt64 ? static_cast<const int64_t*>(edges.src)[e] : e;
}

// The messages of G edges side by side, so that a row of accumulators is read and written once for all of
// them.
template <class T, bool EDGE, bool PLAIN, int L, int G>
struct Group {
  using A = accum<T>;
  using V = Vec<A, L>;

  static constexpr int kEdges = G;

  const T *x[G], *edge[G], *later[G];
  V weight[G], shift[G], floor, slope;

  FG_INLINE Group(const MessageArgs& args, int64_t e, int64_t ahead, int64_t last_edge) {
    const T* rows = static_cast<const T*>(args.x.data);
    floor = broadcast<A, L>(args.activation == kRelu ? 0 : -kInfinity<A>);
    slope = broadcast<A, L>(args.activation == kLeakyRelu ? static_cast<A>(args.negative_slope) : 1);
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
      x[g] = rows + source(args.edges, e + g) * args.x.stride;
      later[g] = rows + source(args.edges, smaller(e + g + ahead, last_edge)) * args.x.stride;
      if constexpr (EDGE) edge[g] = static_cast<const T*>(args.edge.data) + (e + g) * args.edge.stride;
      if constexpr (!PLAIN) {
        const A by = args.weight == nullptr ? 1 : load<1>(static_cast<const T*>(args.weight) + e + g)[0];
        // -0 is what adds nothing: 0 would turn -0 into 0.
        weight[g] = broadcast<A, L>(by);
        shift[g] =
            broadcast<A, L>((args.shift == 0 ? static_cast<A>(-0.0) : static_cast<A>(args.shift)) * by);
      }
    }
  }

  FG_INLINE V message(int g, int64_t c, V dst) const {
    V v = load<L>(x[g] + c) + dst;
    if constexpr (EDGE) v = v + load<L>(edge[g] + c);
    v = (floor > v) ? floor : v;  // NaN stays
    if constexpr (!PLAIN) v = ((v > 0) ? v : v * slope) * weight[g] + shift[g];
    return v;
  }

  // Fetch the rows of later edges: those bytes that follow column c, once per cache line.
  FG_INLINE void fetch(int64_t c) const {
    if (c * static_cast<int64_t>(sizeof(T)) % 64 != 0) return;
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) prefetch(later[g] + c);
  }
};

// How many edges ahead source rows are fetched, so that about 4 to 8 KiB are under way.
FG_INLINE int64_t edges_ahead(int64_t bytes) {
  return bytes <= 128 ? 32 : bytes <= 512 ? 16 : 8;
}

// Call f(group, e) for the edges [e0, e1), four at a time while there are four.
template <class T, bool EDGE, bool PLAIN, int L, class F>
FG_INLINE void for_groups(const MessageArgs& args, int64_t e0, int64_t e1, int64_t columns, F f) {
  const int64_t ahead = edges_ahead(columns * static_cast<int64_t>(sizeof(T)));
  const int64_t last_edge = args.edges.rowptr[args.edges.rows] - args.edges.rowptr[0] - 1;
  int64_t e = e0;
  if constexpr (L == kLanes<accum<T>>)
    for (; e + 4 <= e1; e += 4) f(Group<T, EDGE, PLAIN, L, 4>(args, e, ahead, last_edge), e);
  for (; e < e1; ++e) f(Group<T, EDGE, PLAIN, L, 1>(args, e, ahead, last_edge), e);
}

// Call pick.template at<T, EDGE, PLAIN, L>() with what fits these messages.
template <class T, class Pick>
FG_INLINE auto pick_loop(const MessageArgs& args, Pick pick) {
  constexpr int L = kLanes<accum<T>>;
  const int64_t lanes = slot_lanes(args.dtype, args.width);
  const bool edge = args.edge.data != nullptr;
  if (lanes == L && is_plain(args))
    return edge ? pick.template at<T, true, true, L>() : pick.template at<T, false, true, L>();
  if (lanes == L)
    return edge ? pick.template at<T, true, false, L>() : pick.template at<T, false, false, L>();
  if constexpr (L > 4) {
    if (lanes == 4)
      return edge ? pick.template at<T, true, false, 4>() : pick.template at<T, false, false, 4>();
  }
  return edge ? pick.template at<T, true, false, 1>() : pick.template at<T, false, false, 1>();
}

}  // namespace
}  // namespace FG_ISA
}  // namespace fg

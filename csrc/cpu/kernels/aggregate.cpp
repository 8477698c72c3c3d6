// message_reduce and softmax_reduce: messages folded into a row's state as they are computed, in cache. For
// every vector of columns four edges are folded at a time, so that state is read and written once for four
// messages and source rows are read whole.
#include "cpu/kernels/message.h"

namespace fg {
namespace FG_ISA {
namespace {

constexpr int64_t kChunkBytes = 2048, kTileBytes = 8192;  // of one array of state; of messages that are kept

// The arrays that the state of a row has: sum; maximum; sum, sum of squares, maximum and minimum; or maximum,
// sum of exp and sum of exp * message. What is asked for is served by the smallest that holds it: few, to
// keep the code small; the messages' memory is what costs.
enum State : int { kSumOnly, kMaxOnly, kEverything, kSoftmax };
constexpr int kArrays[] = {1, 1, 4, 3};
constexpr int kPlaces[kOutputs] = {0, 0, 2, 3, 1, 1};  // of the outputs in kEverything

State state_of(const AggregateArgs& args) {
  if (args.scale != nullptr) return kSoftmax;
  const auto asked = [&](int output) { return args.outs[output].data != nullptr; };
  if (asked(kOutMin) || asked(kOutSquareSum) || asked(kOutSquareMean)) return kEverything;
  const bool sum = asked(kOutSum) || asked(kOutMean);
  if (asked(kOutMax)) return sum ? kEverything : kMaxOnly;
  return kSumOnly;
}

// ---- sums and extrema ----

template <class V>
FG_INLINE V max_or_nan(V acc, V v) {
  return ((v > acc) | (v != v)) ? v : acc;
}
template <class V>
FG_INLINE V min_or_nan(V acc, V v) {
  return ((v < acc) | (v != v)) ? v : acc;
}

// A row's sum of squares is NaN exactly where a message is NaN: beside it, maximum and minimum need not look
// for NaN (the emitter does), and are one instruction each.
template <int STATE, int ARRAY, class V>
FG_INLINE V fold(V acc, V v) {
  if constexpr (STATE == kMaxOnly) return max_or_nan(acc, v);
  if constexpr (ARRAY == 1) return acc + v * v;
  if constexpr (ARRAY == 2) return (acc > v) ? acc : v;
  if constexpr (ARRAY == 3) return (acc < v) ? acc : v;
  return acc + v;
}

template <class A, int STATE>
FG_INLINE A start(int array) {
  if (STATE == kMaxOnly || array == 2) return -kInfinity<A>;
  return array == 3 ? kInfinity<A> : 0;
}

template <int STATE, int ARRAY, int L, int G, class A>
FG_INLINE void fold_group(A* state, const Vec<A, L> (&messages)[G]) {
  Vec<A, L> acc = load<L>(state);
#pragma GCC unroll 4
  for (int g = 0; g < G; ++g) acc = fold<STATE, ARRAY>(acc, messages[g]);
  store<L>(state, acc);
}

// Columns [column, end) of the edges [e0, e1) of one row; `state` is the row's, each of its arrays `padded`
// long.
template <class A>
struct Share {
  const A* dst;
  int64_t e0, e1, column, end;
  A* state;
  int64_t padded;
};

template <class T, int STATE, bool EDGE, bool PLAIN, int L>
FG_NOINLINE void fold_edges(const MessageArgs& args, const Share<accum<T>>& share) {
  using A = accum<T>;
  constexpr int K = kArrays[STATE];
  A* const state = share.state;
  const int64_t padded = share.padded;
  for_slots<L>(share.column, share.end, [&](int64_t, int64_t place) FG_LAMBDA {
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) store<L>(state + k * padded + place, broadcast<A, L>(start<A, STATE>(k)));
  });
  const auto fold_in = [&](const auto group, int64_t) FG_LAMBDA {
    constexpr int G = group.kEdges;
    for_slots<L>(share.column, share.end, [&](int64_t c, int64_t place) FG_LAMBDA {
      group.fetch(c);
      const auto mine = load<L>(share.dst + c);
      Vec<A, L> messages[G];
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) messages[g] = group.message(g, c, mine);
      fold_group<STATE, 0, L>(state + place, messages);
      if constexpr (K > 1) {
        fold_group<STATE, 1, L>(state + padded + place, messages);
        fold_group<STATE, 2, L>(state + 2 * padded + place, messages);
        fold_group<STATE, 3, L>(state + 3 * padded + place, messages);
      }
    });
  };
  for_groups<T, EDGE, PLAIN, L>(args, share.e0, share.e1, share.end - share.column, fold_in);
}

template <class T>
using FoldFn = void (*)(const MessageArgs&, const Share<accum<T>>&);

template <int STATE>
struct PickFold {
  template <class T, bool EDGE, bool PLAIN, int L>
  FoldFn<T> at() const {
    return fold_edges<T, STATE, EDGE, PLAIN, L>;
  }
};

// ---- softmax ----

// exp(scaled message - offset); what rounding leaves above 0 counts as 0.
template <int L, class V>
FG_INLINE V power_of(V message, V scale, V offset) {
  const V difference = message * scale - offset;
  return exp_nonpositive<L>((difference > 0) ? V{} : difference);
}

// Fold `edges` messages of one vector of columns: their maximum first, then one exp each, and one more to
// rescale what earlier tiles left (the online softmax of Milakov and Gimelshein, 2018, a tile at a time).
template <int L, class A>
FG_INLINE void fold_softmax(const A* messages, int64_t edges, int64_t stride, Vec<A, L> scale, bool first,
                            A* state, int64_t padded) {
  using V = Vec<A, L>;
  const V before = first ? broadcast<A, L>(-kInfinity<A>) : load<L>(state);
  V most = before, total = {}, sum = {};
  for (int64_t e = 0; e < edges; ++e) {
    const V v = load<L>(messages + e * stride) * scale;
    most = (v > most) ? v : most;
  }
  const V offset = (most == -kInfinity<A>) ? V{} : most;
  for (int64_t e = 0; e < edges; ++e) {
    const V v = load<L>(messages + e * stride);
    const V power = power_of<L>(v, scale, offset);
    total = total + power;
    sum = sum + power * v;
  }
  if (!first) {
    const V factor = (before == most) ? broadcast<A, L>(1) : exp_nonpositive<L>(before - most);
    total = total + load<L>(state + padded) * factor;
    sum = sum + load<L>(state + 2 * padded) * factor;
  }
  store<L>(state, most);
  store<L>(state + padded, total);
  store<L>(state + 2 * padded, sum);
}

// Fold a tile of `edges` rows of `stride` messages each, its vectors in slots.
template <class A>
struct SoftmaxTile {
  const A* messages;
  int64_t edges, stride;
  const A* scale;  // from column 0 on
  bool first;
};

template <class A, int L>
FG_NOINLINE void fold_softmax_tile(const SoftmaxTile<A>& tile, const Share<A>& share) {
  for_slots<L>(share.column, share.end, [&](int64_t c, int64_t place) FG_LAMBDA {
    fold_softmax<L>(tile.messages + place - share.column, tile.edges, tile.stride, load<L>(tile.scale + c),
                    tile.first, share.state + place, share.padded);
  });
}

template <class A>
void fold_softmax_tile(int64_t lanes, const SoftmaxTile<A>& tile, const Share<A>& share) {
  constexpr int L = kLanes<A>;
  if (lanes == L) return fold_softmax_tile<A, L>(tile, share);
  if constexpr (L > 4) {
    if (lanes == 4) return fold_softmax_tile<A, 4>(tile, share);
  }
  fold_softmax_tile<A, 1>(tile, share);
}

// ---- rows and parts ----

constexpr double kEpsilon = 1e-16;  // what torch_geometric.utils.softmax adds to a row's sum

template <class T>
struct Aggregate {
  using A = accum<T>;

  const AggregateArgs& args;
  const MessageArgs& message;
  const State kind;
  const int64_t lanes, padded, chunk, tile_edges;
  FoldFn<T> fold_all = nullptr;
  TileFn write = nullptr;
  A *state, *dst, *tile;

  static int64_t pad(const MessageArgs& message) {
    const int64_t lanes = slot_lanes(message.dtype, message.width);
    return (message.width + lanes - 1) / lanes * lanes;
  }

  // Columns go by in chunks of about equal size, each whole vectors.
  static int64_t chunk_of(int64_t padded, int64_t lanes) {
    constexpr int64_t most = kChunkBytes / static_cast<int64_t>(sizeof(A));
    const int64_t chunks = (padded + most - 1) / most;
    return ((padded + chunks - 1) / chunks + lanes - 1) / lanes * lanes;
  }

  static int64_t tile_of(int64_t chunk) {
    return larger<int64_t>(kTileBytes / static_cast<int64_t>(sizeof(A)) / chunk, 1);
  }

  static int64_t scratch_bytes(const AggregateArgs& args) {
    const int64_t padded = pad(args.message), kind = state_of(args);
    const int64_t chunk = chunk_of(padded, slot_lanes(args.message.dtype, args.message.width));
    const int64_t kept = kind == kSoftmax ? tile_of(chunk) * chunk : 0;
    return ((kArrays[kind] + 1) * padded + kept) * static_cast<int64_t>(sizeof(A));
  }

  Aggregate(const AggregateArgs& given, void* scratch)
      : args(given),
        message(given.message),
        kind(state_of(given)),
        lanes(slot_lanes(message.dtype, message.width)),
        padded(pad(message)),
        chunk(chunk_of(padded, lanes)),
        tile_edges(tile_of(chunk)),
        state(static_cast<A*>(scratch)),
        dst(state + kArrays[kind] * padded),
        tile(dst + padded) {
    prepare_dst(message, dst);
    if (kind == kSumOnly) fold_all = pick_loop<T>(message, PickFold<kSumOnly>());
    if (kind == kMaxOnly) fold_all = pick_loop<T>(message, PickFold<kMaxOnly>());
    if (kind == kEverything) fold_all = pick_loop<T>(message, PickFold<kEverything>());
    if (kind == kSoftmax) write = accumulator_tile(message);
  }

  // The edges [e0, e1), at least one, of a row -> a state.
  void fold_row(int64_t row, int64_t e0, int64_t e1, A* into) const {
    const A* mine = static_cast<const A*>(row_dst(message, row, dst));
    for (int64_t column = 0; column < message.width; column += chunk) {
      const Share<A> share = {mine, e0, e1, column, smaller(column + chunk, message.width), into, padded};
      if (kind == kSoftmax)
        fold_softmax_row(share);
      else
        fold_all(message, share);
    }
  }

  void fold_softmax_row(const Share<A>& share) const {
    const A* scale = static_cast<const A*>(args.scale);
    for (int64_t e = share.e0; e < share.e1; e += tile_edges) {
      const int64_t last = smaller(e + tile_edges, share.e1);
      write(message, {share.dst, e, last, share.column, share.end, tile, chunk, true});
      fold_softmax_tile(lanes, SoftmaxTile<A>{tile, last - e, chunk, scale, e == share.e0}, share);
    }
  }

  T* output(int which, int64_t row) const {
    return static_cast<T*>(args.outs[which].data) + row * args.outs[which].stride;
  }

  // The state of a row of `edges` edges -> its outputs.
  void finish(int64_t row, int64_t edges, const A* from) const {
    constexpr int L = kLanes<A>;
    if (lanes == L) return finish<L>(row, edges, from);
    if constexpr (L > 4) {
      if (lanes == 4) return finish<4>(row, edges, from);
    }
    finish<1>(row, edges, from);
  }

  template <int L>
  void finish(int64_t row, int64_t edges, const A* from) const {
    if (kind == kSoftmax) return finish_softmax<L>(output(0, row), from);
    for (int which = 0; which < kOutputs; ++which) {
      if (args.outs[which].data == nullptr) continue;
      T* out = output(which, row);
      const A* value = from + (kind == kEverything ? kPlaces[which] * padded : 0);
      const A* squares = from + padded;
      const auto by = broadcast<A, L>(static_cast<A>(edges));
      if (which == kOutMean || which == kOutSquareMean)
        emit<L>(out, [&](int64_t place) FG_LAMBDA { return load<L>(value + place) / by; });
      else if (kind == kEverything && (which == kOutMax || which == kOutMin))
        emit<L>(out, [&](int64_t place) FG_LAMBDA {
          const auto square = load<L>(squares + place);
          return (square != square) ? square : load<L>(value + place);
        });
      else
        emit<L>(out, [&](int64_t place) FG_LAMBDA { return load<L>(value + place); });
    }
  }

  template <int L>
  void finish_softmax(T* out, const A* from) const {
    emit<L>(out, [&](int64_t place) FG_LAMBDA {
      const auto most = load<L>(from + place);
      const auto total = load<L>(from + padded + place) + static_cast<A>(kEpsilon);
      // Without a finite maximum the softmax is NaN, as exp(infinity - infinity) is, and so is most - most.
      return load<L>(from + 2 * padded + place) / total + (most - most);
    });
  }

  template <int L, class F>
  FG_INLINE void emit(T* out, F value) const {
    for_slots<L>(0, message.width,
                 [&](int64_t c, int64_t place) FG_LAMBDA { store<L>(out + c, value(place)); });
  }

  void row(int64_t r) const {
    const int64_t* rowptr = message.edges.rowptr;
    const int64_t e0 = rowptr[r] - rowptr[0], e1 = rowptr[r + 1] - rowptr[0];
    if (e0 < e1) {
      fold_row(r, e0, e1, state);
      return finish(r, e1 - e0, state);
    }
    for (int which = 0; which < kOutputs; ++which)
      if (args.outs[which].data != nullptr)
        __builtin_memset(output(which, r), 0, static_cast<size_t>(message.width) * sizeof(T));
  }

  // Fold the state of a later part into an earlier one's.
  void join(A* into, const A* from) const {
    if (kind == kSoftmax) return join_softmax(into, from);
    for (int k = 0; k < kArrays[kind]; ++k)
      for (int64_t i = k * padded; i < (k + 1) * padded; ++i) {
        const auto mine = load<1>(into + i), theirs = load<1>(from + i);
        const bool high = kind == kMaxOnly || k == 2;
        store<1>(into + i, high     ? max_or_nan(mine, theirs)
                           : k == 3 ? min_or_nan(mine, theirs)
                                    : mine + theirs);
      }
  }

  void join_softmax(A* into, const A* from) const {
    for (int64_t i = 0; i < padded; ++i) {
      const A most = larger(into[i], from[i]);
      const auto factor = [&](A part) {
        return part == most ? 1 : exp_nonpositive<1>(broadcast<A, 1>(part - most))[0];
      };
      const A mine = factor(into[i]), theirs = factor(from[i]);
      into[i] = most;
      for (int k = 1; k < 3; ++k) {
        A& sum = into[k * padded + i];
        sum = sum * mine + from[k * padded + i] * theirs;
      }
    }
  }
};

}  // namespace

int64_t aggregate_scratch(const AggregateArgs& args) {
  int64_t bytes = 0;
  with_type(args.message.dtype, [&](auto type) { bytes = Aggregate<decltype(type)>::scratch_bytes(args); });
  return bytes;
}

int64_t aggregate_state_bytes(const AggregateArgs& args) {
  int64_t elements = 0;
  with_type(args.message.dtype, [&](auto type) { elements = Aggregate<decltype(type)>::pad(args.message); });
  return kArrays[state_of(args)] * elements * accumulator_bytes(args.message.dtype);
}

void aggregate_rows(const AggregateArgs& args, int64_t r0, int64_t r1, void* scratch) {
  with_type(args.message.dtype, [&](auto type) {
    const Aggregate<decltype(type)> aggregate(args, scratch);
    for (int64_t r = r0; r < r1; ++r) aggregate.row(r);
  });
}

void aggregate_part(const AggregateArgs& args, int64_t row, int64_t e0, int64_t e1, void* state,
                    void* scratch) {
  with_type(args.message.dtype, [&](auto type) {
    using T = decltype(type);
    Aggregate<T>(args, scratch).fold_row(row, e0, e1, static_cast<accum<T>*>(state));
  });
}

void aggregate_merge(const AggregateArgs& args, int64_t row, void* states, int64_t parts, void* scratch) {
  with_type(args.message.dtype, [&](auto type) {
    using T = decltype(type);
    const Aggregate<T> aggregate(args, scratch);
    accum<T>* into = static_cast<accum<T>*>(states);
    for (int64_t p = 1; p < parts; ++p)
      aggregate.join(into, into + p * kArrays[aggregate.kind] * aggregate.padded);
    const int64_t* rowptr = args.message.edges.rowptr;
    aggregate.finish(row, rowptr[row + 1] - rowptr[row], into);
  });
}

}  // namespace FG_ISA
}  // namespace fg

// Products of rows by a packed matrix, with bias, addend and ReLU in the same store.
//
// The scheme is that of BLIS (Van Zee and van de Geijn, TOMS 2015) without a copy of the rows: a tile of a
// few rows by two vectors of columns stays in registers while one panel of the matrix, packed to be read in
// order, passes through the first-level cache. A row's sums are taken over the inner index in order, wherever
// the row lies in its tile: the result does not depend on how rows are cut into blocks.
#include "cpu/kernels/message.h"

namespace fg {
namespace FG_ISA {
namespace {

constexpr int kVectors = 2;  // of a panel
constexpr int kTileRows = kVectorBytes == 64 ? 12 : 6;
constexpr int64_t kPanelBytes = 16384;  // of a panel, for one pass: half a first-level cache
constexpr int64_t kChunkRows = 96;      // whose part of the inner index stays in the second-level cache

template <class A>
constexpr int64_t kPanel = kVectors * static_cast<int64_t>(kLanes<A>);

// One tile: M rows by one panel, over `inner` of the inner index.
template <class A, int M>
FG_INLINE void tile(const A* x, int64_t x_stride, const A* panel, int64_t inner,
                    Vec<A, kLanes<A>> (&sums)[M][kVectors]) {
  constexpr int L = kLanes<A>;
  for (int64_t k = 0; k < inner; ++k) {
    Vec<A, L> column[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) column[v] = load<L>(panel + k * kPanel<A> + v * L);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const Vec<A, L> by = broadcast<A, L>(x[m * x_stride + k]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[m][v] += by * column[v];
    }
  }
}

// What a tile's sums are added to, and where they end.
template <class A>
struct Ends {
  const A* bias;  // of the panel's columns, or null
  const A* add;   // of the tile's first row and the panel's columns, or null
  int64_t add_stride;
  bool first, relu;  // the first part of the inner index; whether to apply ReLU, after the last
  int64_t columns;   // of the panel that there are
};

template <class A>
FG_INLINE Vec<A, kLanes<A>> read(const A* p, int64_t at, int64_t columns) {
  constexpr int L = kLanes<A>;
  return at + L <= columns ? load<L>(p + at) : load_some<L>(p + at, columns - at);
}

template <class A, int M>
FG_NOINLINE void run_tile(const A* x, int64_t x_stride, const A* panel, int64_t inner, A* out,
                          int64_t out_stride, const Ends<A>& ends) {
  constexpr int L = kLanes<A>;
  Vec<A, L> sums[M][kVectors] = {};
  tile<A, M>(x, x_stride, panel, inner, sums);
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      Vec<A, L> made = sums[m][v];
      if (!ends.first) made += read(out + m * out_stride, v * L, ends.columns);
      if (ends.bias != nullptr) made += read(ends.bias, v * L, ends.columns);
      if (ends.add != nullptr) made += read(ends.add + m * ends.add_stride, v * L, ends.columns);
      const Vec<A, L> zero = {};
      if (ends.relu) made = (zero > made) ? zero : made;  // NaN stays
      A* to = out + m * out_stride + v * L;
      if ((v + 1) * L <= ends.columns) {
        store<L>(to, made);
      } else {
        for (int i = 0; i < L; ++i)
          if (v * L + i < ends.columns) to[i] = made[i];
      }
    }
}

template <class A, int M>
FG_INLINE void run_rows(int64_t rows, const A* x, int64_t x_stride, const A* panel, int64_t inner, A* out,
                        int64_t out_stride, const Ends<A>& ends) {
  if (rows == M) return run_tile<A, M>(x, x_stride, panel, inner, out, out_stride, ends);
  if constexpr (M > 1) run_rows<A, M - 1>(rows, x, x_stride, panel, inner, out, out_stride, ends);
}

template <class A>
void linear_of(const LinearArgs& args, int64_t r0, int64_t r1) {
  constexpr int64_t P = kPanel<A>, kInner = kPanelBytes / (P * static_cast<int64_t>(sizeof(A)));
  const int64_t panels = (args.columns + P - 1) / P;
  for (int64_t row = r0; row < r1; row += kChunkRows) {
    const int64_t end = smaller(row + kChunkRows, r1);
    for (int64_t head = 0; head < args.heads; ++head) {
      const int64_t number = args.which == nullptr ? head : args.which[head];
      const A* matrix = static_cast<const A*>(args.packed) + number * panels * P * args.inner;
      for (int64_t k = 0; k == 0 || k < args.inner; k += kInner) {
        const int64_t inner = smaller(kInner, args.inner - k);
        for (int64_t p = 0; p < panels; ++p) {
          const int64_t column = head * args.columns + p * P;
          Ends<A> ends;
          ends.first = k == 0;
          ends.bias =
              !ends.first || args.bias == nullptr ? nullptr : static_cast<const A*>(args.bias) + column;
          ends.relu = args.activation == kRelu && k + inner >= args.inner;
          ends.columns = smaller(P, args.columns - p * P);
          ends.add_stride = args.add.stride;
          for (int64_t i = row; i < end; i += kTileRows) {
            const A* add = ends.first ? static_cast<const A*>(args.add.data) : nullptr;
            ends.add = add == nullptr ? nullptr : add + i * args.add.stride + column;
            run_rows<A, kTileRows>(
                smaller<int64_t>(kTileRows, end - i),
                static_cast<const A*>(args.x.data) + i * args.x.stride + head * args.inner + k, args.x.stride,
                matrix + p * P * args.inner + k * P, inner,
                static_cast<A*>(args.out) + i * args.out_stride + column, args.out_stride, ends);
          }
        }
      }
    }
  }
}

template <class A>
void pack_of(const LinearArgs& args, const void* matrix, int64_t head_stride, int64_t inner_stride,
             int64_t column_stride, void* packed) {
  constexpr int64_t P = kPanel<A>;
  A* to = static_cast<A*>(packed);
  for (int64_t head = 0; head < args.heads; ++head) {
    const A* from = static_cast<const A*>(matrix) + head * head_stride;
    for (int64_t p = 0; p < args.columns; p += P)
      for (int64_t k = 0; k < args.inner; ++k, to += P)
        for (int64_t c = 0; c < P; ++c)
          to[c] = p + c < args.columns ? from[k * inner_stride + (p + c) * column_stride] : A();
  }
}

// -- products of messages, reduced: neither the messages nor their products leave the second-level cache
// ---------------

constexpr int64_t kTileEdges = 96;

// Take `count` rows of products into a row of results; `first` where it holds none yet.
template <class A, class F>
FG_INLINE void take(A* out, const A* made, int64_t stride, int64_t count, int64_t columns, bool first,
                    F step) {
  constexpr int L = kLanes<A>;
  int64_t c = 0;
  for (; c + L <= columns; c += L) {
    Vec<A, L> acc = first ? load<L>(made + c) : load<L>(out + c);
    for (int64_t e = first ? 1 : 0; e < count; ++e) acc = step(acc, load<L>(made + e * stride + c));
    store<L>(out + c, acc);
  }
  for (; c < columns; ++c) {
    Vec<A, 1> acc = first ? load<1>(made + c) : load<1>(out + c);
    for (int64_t e = first ? 1 : 0; e < count; ++e) acc = step(acc, load<1>(made + e * stride + c));
    store<1>(out + c, acc);
  }
}

template <class A>
void take_rows(int reduce, A* out, const A* made, int64_t stride, int64_t count, int64_t columns,
               bool first) {
  // A NaN wins and then stays: no later comparison with it is true.
  const auto most = [](auto acc, auto v) FG_LAMBDA { return ((v > acc) | (v != v)) ? v : acc; };
  const auto least = [](auto acc, auto v) FG_LAMBDA { return ((v < acc) | (v != v)) ? v : acc; };
  const auto sum = [](auto acc, auto v) FG_LAMBDA { return acc + v; };
  if (reduce == kMax) return take(out, made, stride, count, columns, first, most);
  if (reduce == kMin) return take(out, made, stride, count, columns, first, least);
  take(out, made, stride, count, columns, first, sum);
}

template <class A>
void edge_linear_of(const EdgeLinearArgs& args, int64_t r0, int64_t r1, void* scratch) {
  const MessageArgs& message = args.message;
  const int64_t *rowptr = message.edges.rowptr, width = message.width, columns = args.columns;
  A* messages = static_cast<A*>(scratch);
  A *products = messages + kTileEdges * width, *empty_dst = products + kTileEdges * columns;
  const TileFn write = element_tile(message);
  prepare_dst(message, empty_dst);
  LinearArgs linear;
  linear.x = {messages, width};
  linear.packed = args.packed;
  linear.bias = args.bias;
  linear.inner = width;
  linear.columns = columns;
  linear.out = products;
  linear.out_stride = columns;
  linear.activation = args.activation;
  const int64_t first_edge = rowptr[0], last = rowptr[r1] - first_edge;
  int64_t row = r0, done = rowptr[r0] - first_edge;  // the row at hand; all edges before `done` are taken
  const auto out_of = [&](int64_t r) FG_LAMBDA { return static_cast<A*>(args.out) + r * args.out_stride; };
  const auto finish = [&](int64_t r) FG_LAMBDA {
    A* out = out_of(r);
    const int64_t count = rowptr[r + 1] - rowptr[r];
    if (count == 0)
      for (int64_t c = 0; c < columns; ++c) out[c] = 0;
    else if (args.reduce == kMean)
      for (int64_t c = 0; c < columns; ++c) out[c] /= static_cast<A>(count);
  };
  while (done < last) {
    const int64_t end = smaller(done + kTileEdges, last);
    int64_t r = row;
    for (int64_t e = done; e < end; ++r) {
      const int64_t stop = smaller(rowptr[r + 1] - first_edge, end);
      if (stop == e) continue;
      write(message,
            {row_dst(message, r, empty_dst), e, stop, 0, width, messages + (e - done) * width, width, false});
      e = stop;
    }
    linear_of<A>(linear, 0, end - done);
    for (int64_t e = done; e < end;) {
      const int64_t begin = rowptr[row] - first_edge, stop = smaller(rowptr[row + 1] - first_edge, end);
      if (stop > e)
        take_rows(args.reduce, out_of(row), products + (e - done) * columns, columns, stop - e, columns,
                  e == begin);
      e = stop;
      if (rowptr[row + 1] - first_edge <= end) finish(row++);
    }
    done = end;
  }
  for (; row < r1; ++row) finish(row);  // rows without edges
}

}  // namespace

int64_t edge_linear_scratch(const EdgeLinearArgs& args) {
  const int64_t row = args.message.width + args.columns;
  return (kTileEdges * row + args.message.width) * element_bytes(args.message.dtype);
}

void edge_linear_rows(const EdgeLinearArgs& args, int64_t r0, int64_t r1, void* scratch) {
  if (args.message.dtype == kFloat64) return edge_linear_of<double>(args, r0, r1, scratch);
  edge_linear_of<float>(args, r0, r1, scratch);
}

int64_t linear_panel(int dtype) {
  return dtype == kFloat64 ? kPanel<double> : kPanel<float>;
}

void linear_pack(const LinearArgs& args, const void* matrix, int64_t head_stride, int64_t inner_stride,
                 int64_t column_stride, void* packed) {
  if (args.dtype == kFloat64)
    return pack_of<double>(args, matrix, head_stride, inner_stride, column_stride, packed);
  pack_of<float>(args, matrix, head_stride, inner_stride, column_stride, packed);
}

void linear_rows(const LinearArgs& args, int64_t r0, int64_t r1) {
  if (args.dtype == kFloat64) return linear_of<double>(args, r0, r1);
  linear_of<float>(args, r0, r1);
}

}  // namespace FG_ISA
}  // namespace fg

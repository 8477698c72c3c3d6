// What the kernels are given and the table of functions each instruction set provides.
//
// Letters: N nodes, E edges, B rows, H heads, C channels, W = H * C columns. Edge arrays cover exactly the
// edges rowptr[0] .. rowptr[rows]; edge numbers below are counted from rowptr[0].
#pragma once

#include <cstdint>

namespace fg {

enum Dtype : int { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };
enum Index : int {
  kInt32 = 0,
  kInt64 = 1,
  kIdentity = 2
};  // kIdentity: edge e reads row e, there is no array
enum Reduce : int { kSum = 0, kMean = 1, kMax = 2, kMin = 3, kMul = 4 };
enum Score : int { kExplicit = 0, kAdditive = 1, kGatV2 = 2, kDot = 3 };
enum Activation : int { kNoActivation = 0, kRelu = 1, kLeakyRelu = 2 };
enum Output : int { kOutSum = 0, kOutMean, kOutMax, kOutMin, kOutSquareSum, kOutSquareMean, kOutputs };

// A matrix of rows of unit-stride elements; stride counts elements from row to row.
struct Rows {
  const void* data = nullptr;
  int64_t stride = 0;
};

struct Edges {
  const void* src = nullptr;  // int32 or int64 [E]
  const int64_t* rowptr = nullptr;
  int64_t rows = 0;
  int index = kInt32;

  int64_t count() const { return rowptr[rows] - rowptr[0]; }
};

// out[i] = reduce over the edges e of row i of weight[e, h] * x[src[e], h, :]
struct ReduceArgs {
  Edges edges;
  Rows x;
  const void* weight = nullptr;  // [E, H] of x's type, or null
  int64_t heads = 1, channels = 0;
  void* out = nullptr;
  int64_t out_stride = 0;
  int dtype = kFloat32, reduce = kSum;

  int64_t width() const { return heads * channels; }
};

// out[i, h, :] = sum over the edges of row i of softmax(score)[e, h] * value[src[e], h, :] (with `shared`,
// value[src[e], :]); without a value (value.data == null) out is the softmax itself, [E, H].
struct AttendArgs {
  Edges edges;
  Rows value;
  bool shared = false;              // value is [N, C], the same for all heads
  int64_t heads = 1, channels = 0;  // of value
  void* out = nullptr;
  int64_t out_stride = 0;
  int dtype = kFloat32, score = kExplicit;
  Rows key, query, edge;      // additive: score_src, score_dst, score_edge; explicit: edge is the score
  const void* att = nullptr;  // [H, K] for GATv2
  int64_t key_channels = 0;
  double scale = 1, negative_slope = 0.2;

  int64_t width() const { return heads * channels; }
};

// The message of edge e of row i: weight[e] * (activation(x[src[e]] + dst[i] + edge[e]) + shift), columnwise.
struct MessageArgs {
  Edges edges;
  Rows x, dst, edge;             // dst [B, W] and edge [E, W] may be absent
  const void* weight = nullptr;  // [E] of x's type, or null
  int64_t width = 0;
  void* out = nullptr;  // [E, W], where the messages themselves are wanted
  int64_t out_stride = 0;
  int dtype = kFloat32, activation = kNoActivation;
  double negative_slope = 0, shift = 0;
};

// Reductions of the messages m of each row: either those of Output that have data, or with `scale`
// [W], of accumulators, the softmax aggregation sum_e softmax(scale * m)[e] * m[e] into outs[0].
struct AggregateArgs {
  MessageArgs message;
  struct Out {
    void* data = nullptr;
    int64_t stride = 0;
  } outs[kOutputs];
  const void* scale = nullptr;
};

// out[r, h, :] = activation(x[r, h, :] @ W[h] + bias[h, :] + add[r, h, :]); float32 or float64.
struct LinearArgs {
  Rows x;                          // [R, H * K]
  const void* packed = nullptr;    // W [T, K, N] as linear_pack writes it
  const int64_t* which = nullptr;  // [H] of T: the matrix of each head; null: head h has matrix h
  const void* bias = nullptr;      // [H * N], or null
  Rows add;                        // [R, H * N], or absent; may be `out`
  int64_t rows = 0, heads = 1, inner = 0, columns = 0;
  void* out = nullptr;
  int64_t out_stride = 0;
  int dtype = kFloat32, activation = kNoActivation;
};

// out[i] = reduce over the edges e of row i of activation(m[e] @ W + bias), m a message; float32 or float64;
// a row without edges is 0.
struct EdgeLinearArgs {
  MessageArgs message;           // its `out` is not used
  const void* packed = nullptr;  // W [width, columns], as linear_pack writes it
  const void* bias = nullptr;    // [columns], or null
  int64_t columns = 0;
  void* out = nullptr;  // [B, columns]
  int64_t out_stride = 0;
  int activation = kNoActivation, reduce = kSum;  // all but kMul
};

// The functions of one instruction set. Part functions take edges [e0, e1) of one row that has too many for
// one thread; their results are merged in order, so that neither the threads nor their number change a bit.
// `scratch` is a buffer of at least the bytes that the *_scratch function names for rows (parts) of at most
// `edges` edges.
struct Kernels {
  const char* name;
  int64_t (*reduce_scratch)(const ReduceArgs&, int64_t edges);
  void (*reduce_rows)(const ReduceArgs&, int64_t r0, int64_t r1, void* scratch);
  void (*reduce_part)(const ReduceArgs&, int64_t e0, int64_t e1, void* partial, void* scratch);
  void (*reduce_merge)(const ReduceArgs&, int64_t row, const void* partials, int64_t parts);
  int64_t (*attend_scratch)(const AttendArgs&, int64_t edges);
  int64_t (*attend_stats_bytes)(const AttendArgs&);
  void (*attend_rows)(const AttendArgs&, int64_t r0, int64_t r1, void* scratch);
  void (*attend_part)(const AttendArgs&, int64_t row, int64_t e0, int64_t e1, void* stats, void* partial,
                      void* scratch);
  // The row's output, and its stats in `total`; the parts' stats are overwritten.
  void (*attend_merge)(const AttendArgs&, int64_t row, void* stats, const void* partials, int64_t parts,
                       void* total);
  void (*attend_weights)(const AttendArgs&, int64_t row, int64_t e0, int64_t e1, const void* total,
                         void* scratch);
  // The scores of edges [e0, e1) of a row -> out [E, H].
  void (*attend_scores)(const AttendArgs&, int64_t row, int64_t e0, int64_t e1, void* scratch);
  int64_t (*message_scratch)(const MessageArgs&);
  void (*message_rows)(const MessageArgs&, int64_t r0, int64_t r1, void* scratch);
  void (*message_part)(const MessageArgs&, int64_t row, int64_t e0, int64_t e1, void* scratch);
  int64_t (*aggregate_scratch)(const AggregateArgs&);
  int64_t (*aggregate_state_bytes)(const AggregateArgs&);
  void (*aggregate_rows)(const AggregateArgs&, int64_t r0, int64_t r1, void* scratch);
  void (*aggregate_part)(const AggregateArgs&, int64_t row, int64_t e0, int64_t e1, void* state,
                         void* scratch);
  // The row's outputs; the parts' states are overwritten.
  void (*aggregate_merge)(const AggregateArgs&, int64_t row, void* states, int64_t parts, void* scratch);
  void (*copy_rows)(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes,
                    const void* index, int index_type, int64_t e0, int64_t e1, int64_t edges);
  void (*repeat_rows)(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes,
                      const int64_t* rowptr, int64_t r0, int64_t r1);
  float (*sum_lines)(const char* x, int64_t row_bytes, const int32_t* index, int64_t e0, int64_t e1,
                     int64_t edges);
  // Columns are packed in panels of so many, the last one filled up with zeros.
  int64_t (*linear_panel)(int dtype);
  void (*linear_pack)(const LinearArgs&, const void* matrix, int64_t head_stride, int64_t inner_stride,
                      int64_t column_stride, void* packed);
  void (*linear_rows)(const LinearArgs&, int64_t r0, int64_t r1);
  int64_t (*edge_linear_scratch)(const EdgeLinearArgs&);
  void (*edge_linear_rows)(const EdgeLinearArgs&, int64_t r0, int64_t r1, void* scratch);
};

inline int64_t accumulator_bytes(int dtype) {
  return dtype == kFloat64 ? 8 : 4;
}
inline int64_t element_bytes(int dtype) {
  return dtype == kFloat64 ? 8 : dtype == kFloat32 ? 4 : 2;
}

// One per instruction set, defined in kernels/table.cpp.
const Kernels* kernels_baseline();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();

}  // namespace fg

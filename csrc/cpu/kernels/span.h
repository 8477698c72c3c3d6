// The loop that everything ends in: reduce the (weighted) source rows of a span of edges into one row of
// columns.
#pragma once

#include "cpu/kernels.h"
#include "cpu/kernels/vec.h"

namespace fg {
namespace FG_ISA {

constexpr int kMaxVectors = kVectorBytes == 64 ? 16 : 8;  // of sums that stay in registers

// How a vector of columns gets its edge's weight.
enum Mode : int {
  kNone,       // no weight
  kScalar,     // one weight per edge
  kBroadcast,  // heads of whole vectors: each vector lies in one head
  kShuffle,    // vectors that straddle heads: lanes pick their head's weight
};

// The heads of the columns of one vector: lane i belongs to head first + lane[i].
struct LaneMap {
  int64_t first;
  int32_t lane[16];
};

struct Span {
  const void* x;
  int64_t stride;  // elements from row to row
  const void* src;
  int64_t edges;  // of the whole array, which bounds the prefetch
  int64_t width;
  const LaneMap* lanes;  // one per vector, for kBroadcast and kShuffle
  bool mean;
  bool raw;  // store accumulators, not finished elements
};

// Reduce the edges [e0, e1), at least one, into `out`. `weight` [e1 - e0, weight_stride] holds accumulators
// and, for kShuffle, a vector more than that can be read.
using SpanFn = void (*)(const Span&, int64_t e0, int64_t e1, const void* weight, int64_t weight_stride,
                        void* out);

// The loop for a weighted sum, for the attention kernels.
SpanFn weighted_sum(int dtype, int index, int mode);

// The loop for weighted sums of the same rows, one for each of `padded_heads` (an even number of) heads:
// accumulators [padded_heads, width] into `out`, from `weight` [e1 - e0, padded_heads], whose stride is that.
SpanFn shared_sum(int dtype, int index, int64_t padded_heads);

Mode weight_mode(int dtype, int64_t heads, int64_t channels);
int64_t lane_map_bytes(int dtype, int64_t width);
void fill_lane_map(int dtype, int64_t width, int64_t channels, LaneMap* lanes);

}  // namespace FG_ISA
}  // namespace fg

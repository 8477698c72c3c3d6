// gather and repeat: copies of rows of bytes; and the probe that measures how fast random rows can be read.
#include "cpu/kernels.h"
#include "cpu/kernels/vec.h"

namespace fg {
namespace FG_ISA {
namespace {

constexpr int64_t kCopyAhead = 16;
constexpr int64_t kPrefetchBytes = 1024;
// Of the probe, the bytes of rows under way: near the best that was measured, for rows of 64 bytes to 2 KiB.
constexpr int64_t kBytesAhead = 8192;

using Block = Vec<uint8_t, kVectorBytes>;

template <class W>
FG_INLINE void copy_ends(char* out, const char* x, int64_t bytes) {
  const W first = load_bits<W>(x), last = load_bits<W>(x + bytes - sizeof(W));
  __builtin_memcpy(out, &first, sizeof(W));
  __builtin_memcpy(out + bytes - sizeof(W), &last, sizeof(W));
}

// Copy any number of bytes: whole vectors and a last one that overlaps, or two overlapping words.
FG_INLINE void copy_bytes(char* out, const char* x, int64_t bytes) {
  if (bytes >= kVectorBytes) {
    const int64_t last = bytes - kVectorBytes;
    for (int64_t b = 0; b < last; b += kVectorBytes) {
      const Block block = load_bits<Block>(x + b);
      __builtin_memcpy(out + b, &block, sizeof(block));
    }
    const Block block = load_bits<Block>(x + last);
    __builtin_memcpy(out + last, &block, sizeof(block));
  } else if (bytes >= 16) {
    for (int64_t b = 0; b < bytes - 32; b += 16) copy_ends<Vec<uint8_t, 16>>(out + b, x + b, 16);
    if (bytes > 32) copy_ends<Vec<uint8_t, 16>>(out + bytes - 32, x + bytes - 32, 32);
    if (bytes <= 32) copy_ends<Vec<uint8_t, 16>>(out, x, bytes);
  } else if (bytes >= 8) {
    copy_ends<uint64_t>(out, x, bytes);
  } else if (bytes >= 4) {
    copy_ends<uint32_t>(out, x, bytes);
  } else {
    for (int64_t b = 0; b < bytes; ++b) out[b] = x[b];
  }
}

template <class I>
void copy(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes, const I* index,
          int64_t e0, int64_t e1, int64_t edges) {
  for (int64_t e = e0; e < e1; ++e) {
    const char* later = x + row_of(index, smaller(e + kCopyAhead, edges - 1)) * x_stride;
    for (int64_t b = 0; b < smaller(row_bytes, kPrefetchBytes); b += 64) prefetch(later + b);
    copy_bytes(out + e * out_stride, x + row_of(index, e) * x_stride, row_bytes);
  }
}

}  // namespace

void copy_rows(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes,
               const void* index, int index_type, int64_t e0, int64_t e1, int64_t edges) {
  if (index_type == kInt32)
    copy(out, out_stride, x, x_stride, row_bytes, static_cast<const int32_t*>(index), e0, e1, edges);
  else
    copy(out, out_stride, x, x_stride, row_bytes, static_cast<const int64_t*>(index), e0, e1, edges);
}

void repeat_rows(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes,
                 const int64_t* rowptr, int64_t r0, int64_t r1) {
  for (int64_t r = r0; r < r1; ++r)
    for (int64_t e = rowptr[r] - rowptr[0]; e < rowptr[r + 1] - rowptr[0]; ++e)
      copy_bytes(out + e * out_stride, x + r * x_stride, row_bytes);
}

float sum_lines(const char* x, int64_t row_bytes, const int32_t* index, int64_t e0, int64_t e1,
                int64_t edges) {
  constexpr int L = kLanes<float>;
  const int64_t ahead = smaller<int64_t>(larger<int64_t>(kBytesAhead / row_bytes, 4), 32);
  Vec<float, L> total = {};
  for (int64_t e = e0; e < e1; ++e) {
    const char* later = x + row_of(index, smaller(e + ahead, edges - 1)) * row_bytes;
    for (int64_t b = 0; b < row_bytes; b += 64) prefetch(later + b);
    const char* row = x + row_of(index, e) * row_bytes;
    for (int64_t b = 0; b < row_bytes; b += kVectorBytes) total = total + load_bits<Vec<float, L>>(row + b);
  }
  return sum_lanes<float, L>(total);
}

}  // namespace FG_ISA
}  // namespace fg

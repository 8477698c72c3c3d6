// The stable counting sort by row, whole (csr) or of edges that come in tiles (count_rows, place_rows).
//
// Whole: edges are first dealt, in order, into buckets of neighbouring rows (so that the counters and targets
// of what follows fit in cache), then each bucket is sorted by itself; both in parallel.
#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "cpu/operators.h"
#include "cpu/parallel.h"

namespace fg {
namespace {

constexpr int64_t kBucketRows = 8192;      // a bucket's counters: 64 KiB
constexpr int64_t kMostBuckets = 2048;     // targets that a thread writes to at the same time
constexpr int64_t kLeastEdges = 1 << 16;   // per slice
constexpr int64_t kLeastShared = 1 << 14;  // per thread of a tile

template <class W>
struct Pair {
  W row, edge;
};

// Memory that nobody has to clear first.
template <class T>
std::unique_ptr<T[]> uninitialised(int64_t count) {
  return std::unique_ptr<T[]>(new T[static_cast<size_t>(count)]);
}

// W holds row and edge numbers while sorting: as narrow as the numbers allow, whatever type the caller's
// index has.
template <class W, class I>
bool sort(const I* index, int64_t edges, int64_t rows, int64_t* rowptr, I* perm, int threads) {
  int shift = 0;
  while ((rows >> shift) > kMostBuckets || (int64_t{1} << shift) < kBucketRows) ++shift;
  const int64_t buckets = (std::max<int64_t>(rows, 1) - 1) / (int64_t{1} << shift) + 1;
  const int64_t slices = std::clamp<int64_t>(edges / kLeastEdges, 1, threads);
  const auto slice = [&](int64_t s) { return edges * s / slices; };
  std::vector<int64_t> start(static_cast<size_t>(slices * buckets));
  std::atomic<bool> fine{true};
  parallel_for(slices, threads, [&](int64_t s) {
    std::vector<int64_t> count(static_cast<size_t>(buckets));
    bool good = true;
    for (int64_t e = slice(s); e < slice(s + 1); ++e) {
      const bool in_range = index[e] >= 0 && static_cast<int64_t>(index[e]) < rows;
      good &= in_range;
      if (in_range) ++count[static_cast<size_t>(index[e] >> shift)];
    }
    if (!good) fine = false;
    std::copy(count.begin(), count.end(), start.begin() + s * buckets);
  });
  if (!fine) return false;
  std::vector<int64_t> bucket_start(static_cast<size_t>(buckets + 1));
  int64_t total = 0;
  for (int64_t b = 0; b < buckets; ++b) {
    bucket_start[b] = total;
    for (int64_t s = 0; s < slices; ++s) {
      const int64_t count = start[s * buckets + b];
      start[s * buckets + b] = total;
      total += count;
    }
  }
  bucket_start[buckets] = total;
  auto pairs = uninitialised<Pair<W>>(edges);
  parallel_for(slices, threads, [&](int64_t s) {
    int64_t* next = start.data() + s * buckets;
    for (int64_t e = slice(s); e < slice(s + 1); ++e)
      pairs[static_cast<size_t>(next[index[e] >> shift]++)] = {static_cast<W>(index[e]), static_cast<W>(e)};
  });
  parallel_for(buckets, threads, [&](int64_t b) {
    const int64_t row0 = b << shift, row1 = std::min(row0 + (int64_t{1} << shift), rows);
    const Pair<W>* begin = pairs.get() + bucket_start[b];
    const Pair<W>* end = pairs.get() + bucket_start[b + 1];
    std::vector<int64_t> next(static_cast<size_t>(row1 - row0) + 1);
    for (const Pair<W>* p = begin; p < end; ++p) ++next[static_cast<size_t>(p->row - row0)];
    int64_t position = bucket_start[b];
    for (int64_t r = row0; r < row1; ++r) {
      const int64_t count = next[static_cast<size_t>(r - row0)];
      rowptr[r] = next[static_cast<size_t>(r - row0)] = position;
      position += count;
    }
    for (const Pair<W>* p = begin; p < end; ++p)
      perm[next[static_cast<size_t>(p->row - row0)]++] = static_cast<I>(p->edge);
  });
  rowptr[rows] = edges;
  return true;
}

template <class I>
bool in_range(const I* index, int64_t edges, int64_t rows) {
  bool fine = true;
  for (int64_t e = 0; e < edges; ++e) fine &= index[e] >= 0 && static_cast<int64_t>(index[e]) < rows;
  return fine;
}

// Each thread reads the whole tile and serves the rows of its own range: in order, with no counters of its
// own.
template <class I, class Serve>
void by_rows(const I* index, int64_t edges, int64_t rows, int threads, const Serve& serve) {
  const int64_t most = std::min<int64_t>(threads, std::max<int64_t>(rows, 1));
  const int64_t parts = std::clamp<int64_t>(edges / kLeastShared, 1, most);
  parallel_for(parts, threads, [&](int64_t part) {
    const int64_t first = rows * part / parts, count = rows * (part + 1) / parts - first;
    for (int64_t e = 0; e < edges; ++e)
      if (static_cast<uint64_t>(index[e] - first) < static_cast<uint64_t>(count))
        serve(e, static_cast<int64_t>(index[e]));
  });
}

template <class I>
bool count(const I* index, int64_t edges, int64_t rows, int64_t* counts, int threads) {
  if (!in_range(index, edges, rows)) return false;
  by_rows(index, edges, rows, threads, [&](int64_t, int64_t row) { ++counts[row]; });
  return true;
}

template <class I>
bool place(const I* index, int64_t edges, int64_t rows, int64_t* next, int64_t* position, int threads) {
  if (!in_range(index, edges, rows)) return false;
  by_rows(index, edges, rows, threads, [&](int64_t edge, int64_t row) { position[edge] = next[row]++; });
  return true;
}

}  // namespace

bool csr(const void* index, int index_type, int64_t edges, int64_t num_rows, int64_t* rowptr, void* perm,
         int threads) {
  const bool narrow = edges <= INT32_MAX && num_rows <= INT32_MAX;
  const auto* wide = static_cast<const int64_t*>(index);
  if (index_type == kInt32)
    return sort<int32_t>(static_cast<const int32_t*>(index), edges, num_rows, rowptr,
                         static_cast<int32_t*>(perm), threads);
  if (narrow) return sort<int32_t>(wide, edges, num_rows, rowptr, static_cast<int64_t*>(perm), threads);
  return sort<int64_t>(wide, edges, num_rows, rowptr, static_cast<int64_t*>(perm), threads);
}

bool count_rows(const void* index, int index_type, int64_t edges, int64_t rows, int64_t* counts,
                int threads) {
  if (index_type == kInt32) return count(static_cast<const int32_t*>(index), edges, rows, counts, threads);
  return count(static_cast<const int64_t*>(index), edges, rows, counts, threads);
}

bool place_rows(const void* index, int index_type, int64_t edges, int64_t rows, int64_t* next,
                int64_t* position, int threads) {
  if (index_type == kInt32)
    return place(static_cast<const int32_t*>(index), edges, rows, next, position, threads);
  return place(static_cast<const int64_t*>(index), edges, rows, next, position, threads);
}

}  // namespace fg

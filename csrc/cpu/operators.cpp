// Splitting work over threads by edges. Rows with more edges than a hub's are split into parts at fixed places, so
// that one row never holds up all threads, and so that results depend neither on the threads nor on their number.
#include "cpu/operators.h"

#include <algorithm>
#include <mutex>
#include <vector>

#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace fg {
namespace {

constexpr int64_t kHubEdges = 16384, kHubScores = 65536, kLeastHubEdges = 256;
constexpr int64_t kLeastChunk = 512, kMostChunk = 16384, kChunksPerThread = 16;

// A row with more edges than this is split into parts of this many; with heads, so that a part's scores fit in cache.
int64_t hub_edges(int64_t heads) {
  return std::min(kHubEdges, std::max(kLeastHubEdges, kHubScores / std::max<int64_t>(heads, 1)));
}

int64_t chunk_size(int64_t work, int threads) {
  return std::clamp(work / (kChunksPerThread * std::max(threads, 1)), kLeastChunk, kMostChunk);
}

// Call rows(r0, r1) for runs of rows without a hub, in parallel; return the hubs in order.
template <class F>
std::vector<int64_t> for_rows(const Edges& edges, int64_t hub, int threads, const F& rows) {
  const int64_t* rowptr = edges.rowptr;
  const int64_t work = edges.count() + edges.rows, size = chunk_size(work, threads);
  const auto first_row = [&](int64_t position) {  // the first row with that much work before it
    int64_t low = 0, high = edges.rows;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (rowptr[middle] - rowptr[0] + middle < position)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  };
  std::mutex mutex;
  std::vector<int64_t> hubs;
  parallel_for((work + size - 1) / size, threads, [&](int64_t chunk) {
    int64_t begin = first_row(chunk * size);
    const int64_t end = first_row((chunk + 1) * size);
    if (begin < end && rowptr[end] - rowptr[begin] > hub) {
      for (int64_t r = begin; r < end; ++r) {
        if (rowptr[r + 1] - rowptr[r] <= hub) continue;
        if (begin < r) rows(begin, r);
        begin = r + 1;
        std::lock_guard<std::mutex> lock(mutex);
        hubs.push_back(r);
      }
    }
    if (begin < end) rows(begin, end);
  });
  std::sort(hubs.begin(), hubs.end());
  return hubs;
}

struct Part {
  int64_t row, e0, e1;
};

std::vector<Part> parts_of(const Edges& edges, int64_t row, int64_t hub) {
  std::vector<Part> parts;
  const int64_t begin = edges.rowptr[row] - edges.rowptr[0], end = edges.rowptr[row + 1] - edges.rowptr[0];
  for (int64_t e = begin; e < end; e += hub) parts.push_back({row, e, std::min(e + hub, end)});
  return parts;
}

void reduce_hub(const ReduceArgs& args, int64_t row, int64_t hub, int threads) {
  const Kernels& isa = kernels();
  const std::vector<Part> parts = parts_of(args.edges, row, hub);
  const int64_t bytes = args.width() * accumulator_bytes(args.dtype), scratch = isa.reduce_scratch(args, hub);
  std::vector<char> partials(parts.size() * static_cast<size_t>(bytes));
  parallel_for(static_cast<int64_t>(parts.size()), threads, [&](int64_t p) {
    isa.reduce_part(args, parts[p].e0, parts[p].e1, partials.data() + p * bytes, thread_scratch(scratch));
  });
  isa.reduce_merge(args, row, partials.data(), static_cast<int64_t>(parts.size()));
}

void attend_hub(const AttendArgs& args, int64_t row, int64_t hub, int threads) {
  const Kernels& isa = kernels();
  const std::vector<Part> parts = parts_of(args.edges, row, hub);
  const int64_t count = static_cast<int64_t>(parts.size());
  const int64_t stats_bytes = isa.attend_stats_bytes(args), scratch = isa.attend_scratch(args, hub);
  const int64_t bytes = args.width() * accumulator_bytes(args.dtype);
  std::vector<char> stats(static_cast<size_t>(count * stats_bytes)), total(static_cast<size_t>(stats_bytes));
  std::vector<char> partials(static_cast<size_t>(count * bytes));
  parallel_for(count, threads, [&](int64_t p) {
    isa.attend_stats(args, row, parts[p].e0, parts[p].e1, stats.data() + p * stats_bytes, thread_scratch(scratch));
  });
  isa.attend_combine(args, stats.data(), count, total.data());
  parallel_for(count, threads, [&](int64_t p) {
    isa.attend_part(args, row, parts[p].e0, parts[p].e1, total.data(), partials.data() + p * bytes,
                    thread_scratch(scratch));
  });
  if (args.value.data == nullptr) return;
  ReduceArgs merged;
  merged.edges = args.edges;
  merged.heads = args.heads;
  merged.channels = args.channels;
  merged.out = args.out;
  merged.out_stride = args.out_stride;
  merged.dtype = args.dtype;
  isa.reduce_merge(merged, row, partials.data(), count);
}

// Call body(e0, e1) over equal spans of edges, in parallel.
template <class F>
void for_edges(int64_t edges, int threads, const F& body) {
  const int64_t size = chunk_size(edges, threads);
  parallel_for((edges + size - 1) / size, threads,
               [&](int64_t chunk) { body(chunk * size, std::min((chunk + 1) * size, edges)); });
}

}  // namespace

void gather_reduce(const ReduceArgs& args, int threads) {
  if (args.width() == 0) return;
  const Kernels& isa = kernels();
  const int64_t hub = hub_edges(args.weight == nullptr ? 1 : args.heads), scratch = isa.reduce_scratch(args, hub);
  const auto rows = [&](int64_t r0, int64_t r1) { isa.reduce_rows(args, r0, r1, thread_scratch(scratch)); };
  for (int64_t row : for_rows(args.edges, hub, threads, rows)) reduce_hub(args, row, hub, threads);
}

void attention(const AttendArgs& args, int threads) {
  if (args.heads == 0 || (args.value.data != nullptr && args.channels == 0)) return;
  const Kernels& isa = kernels();
  const int64_t hub = hub_edges(args.heads), scratch = isa.attend_scratch(args, hub);
  const auto rows = [&](int64_t r0, int64_t r1) { isa.attend_rows(args, r0, r1, thread_scratch(scratch)); };
  for (int64_t row : for_rows(args.edges, hub, threads, rows)) attend_hub(args, row, hub, threads);
}

void gather(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes, const void* index,
            int index_type, int64_t edges, int threads) {
  if (row_bytes == 0) return;
  for_edges(edges, threads, [&](int64_t e0, int64_t e1) {
    kernels().copy_rows(out, out_stride, x, x_stride, row_bytes, index, index_type, e0, e1, edges);
  });
}

void repeat(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes, const int64_t* rowptr,
            int64_t rows, int threads) {
  if (row_bytes == 0) return;
  Edges edges;
  edges.rowptr = rowptr;
  edges.rows = rows;
  const auto copy = [&](int64_t r0, int64_t r1) {
    kernels().repeat_rows(out, out_stride, x, x_stride, row_bytes, rowptr, r0, r1);
  };
  for (int64_t row : for_rows(edges, kHubEdges, threads, copy)) copy(row, row + 1);
}

}  // namespace fg

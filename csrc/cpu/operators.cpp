// Splitting work over threads by edges. Rows with more edges than a hub's are split into parts at fixed
// places, so that one row never holds up all threads, and so that results depend neither on the threads nor
// on their number.
#include "cpu/operators.h"

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace fg {
namespace {

// Not above 2048: a float32 sum of more terms, one by one, loses digits that the contract promises.
constexpr int64_t kHubEdges = 2048, kHubScores = 32768, kLeastHubEdges = 256;
constexpr int64_t kLeastChunk = 512, kMostChunk = 16384, kChunksPerThread = 16;

// A row with more edges than this is split into parts of this many; with heads, so that a part's scores fit
// in cache.
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

// The parts of all hubs; hub h has parts [first[h], first[h + 1]).
struct Hubs {
  std::vector<int64_t> rows, first;
  std::vector<Part> parts;

  Hubs(const Edges& edges, std::vector<int64_t> hub_rows, int64_t hub) : rows(std::move(hub_rows)), first{0} {
    for (int64_t row : rows) {
      const int64_t begin = edges.rowptr[row] - edges.rowptr[0],
                    end = edges.rowptr[row + 1] - edges.rowptr[0];
      for (int64_t e = begin; e < end; e += hub) parts.push_back({row, e, std::min(e + hub, end)});
      first.push_back(static_cast<int64_t>(parts.size()));
    }
  }

  int64_t count() const { return static_cast<int64_t>(rows.size()); }
  int64_t part_count() const { return static_cast<int64_t>(parts.size()); }
  int64_t parts_of(int64_t h) const { return first[h + 1] - first[h]; }
};

void reduce_hubs(const ReduceArgs& args, const Hubs& hubs, int64_t scratch, int threads) {
  const Kernels& isa = kernels();
  const int64_t bytes = args.width() * accumulator_bytes(args.dtype);
  std::vector<char> partials(static_cast<size_t>(hubs.part_count() * bytes));
  parallel_for(hubs.part_count(), threads, [&](int64_t p) {
    isa.reduce_part(args, hubs.parts[p].e0, hubs.parts[p].e1, partials.data() + p * bytes,
                    thread_scratch(scratch));
  });
  parallel_for(hubs.count(), threads, [&](int64_t h) {
    isa.reduce_merge(args, hubs.rows[h], partials.data() + hubs.first[h] * bytes, hubs.parts_of(h));
  });
}

void attend_hubs(const AttendArgs& args, const Hubs& hubs, int64_t scratch, int threads) {
  const Kernels& isa = kernels();
  const int64_t bytes = args.width() * accumulator_bytes(args.dtype),
                stats_bytes = isa.attend_stats_bytes(args);
  std::vector<char> stats(static_cast<size_t>(hubs.part_count() * stats_bytes));
  std::vector<char> totals(static_cast<size_t>(hubs.count() * stats_bytes));
  std::vector<char> partials(static_cast<size_t>(hubs.part_count() * bytes));
  parallel_for(hubs.part_count(), threads, [&](int64_t p) {
    const Part& part = hubs.parts[p];
    isa.attend_part(args, part.row, part.e0, part.e1, stats.data() + p * stats_bytes,
                    partials.data() + p * bytes, thread_scratch(scratch));
  });
  parallel_for(hubs.count(), threads, [&](int64_t h) {
    isa.attend_merge(args, hubs.rows[h], stats.data() + hubs.first[h] * stats_bytes,
                     partials.data() + hubs.first[h] * bytes, hubs.parts_of(h),
                     totals.data() + h * stats_bytes);
  });
  if (args.value.data != nullptr) return;
  parallel_for(hubs.part_count(), threads, [&](int64_t p) {
    const Part& part = hubs.parts[p];
    const auto hub = std::lower_bound(hubs.rows.begin(), hubs.rows.end(), part.row) - hubs.rows.begin();
    isa.attend_weights(args, part.row, part.e0, part.e1, totals.data() + hub * stats_bytes,
                       thread_scratch(scratch));
  });
}

void aggregate_hubs(const AggregateArgs& args, const Hubs& hubs, int64_t scratch, int threads) {
  const Kernels& isa = kernels();
  const int64_t bytes = isa.aggregate_state_bytes(args);
  std::vector<char> states(static_cast<size_t>(hubs.part_count() * bytes));
  parallel_for(hubs.part_count(), threads, [&](int64_t p) {
    const Part& part = hubs.parts[p];
    isa.aggregate_part(args, part.row, part.e0, part.e1, states.data() + p * bytes, thread_scratch(scratch));
  });
  parallel_for(hubs.count(), threads, [&](int64_t h) {
    isa.aggregate_merge(args, hubs.rows[h], states.data() + hubs.first[h] * bytes, hubs.parts_of(h),
                        thread_scratch(scratch));
  });
}

// Call part(row, e0, e1) for the parts of hubs and rows(r0, r1) for all other rows, where every edge has a
// result of its own.
template <class R, class P>
void for_rows_and_parts(const Edges& edges, int64_t hub, int threads, const R& rows, const P& part) {
  const Hubs hubs(edges, for_rows(edges, hub, threads, rows), hub);
  parallel_for(hubs.part_count(), threads,
               [&](int64_t p) { part(hubs.parts[p].row, hubs.parts[p].e0, hubs.parts[p].e1); });
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
  const int64_t hub = hub_edges(args.weight == nullptr ? 1 : args.heads),
                scratch = isa.reduce_scratch(args, hub);
  const auto rows = [&](int64_t r0, int64_t r1) { isa.reduce_rows(args, r0, r1, thread_scratch(scratch)); };
  const Hubs hubs(args.edges, for_rows(args.edges, hub, threads, rows), hub);
  if (hubs.count() > 0) reduce_hubs(args, hubs, scratch, threads);
}

void attention(const AttendArgs& args, int threads) {
  if (args.heads == 0 || (args.value.data != nullptr && args.channels == 0)) return;
  const Kernels& isa = kernels();
  const int64_t hub = hub_edges(args.heads), scratch = isa.attend_scratch(args, hub);
  const auto rows = [&](int64_t r0, int64_t r1) { isa.attend_rows(args, r0, r1, thread_scratch(scratch)); };
  const Hubs hubs(args.edges, for_rows(args.edges, hub, threads, rows), hub);
  if (hubs.count() > 0) attend_hubs(args, hubs, scratch, threads);
}

void edge_scores(const AttendArgs& args, int threads) {
  if (args.heads == 0) return;
  const Kernels& isa = kernels();
  const int64_t hub = hub_edges(args.heads), scratch = isa.attend_scratch(args, hub);
  const int64_t* rowptr = args.edges.rowptr;
  const auto part = [&](int64_t row, int64_t e0, int64_t e1) {
    isa.attend_scores(args, row, e0, e1, thread_scratch(scratch));
  };
  const auto rows = [&](int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; ++r) part(r, rowptr[r] - rowptr[0], rowptr[r + 1] - rowptr[0]);
  };
  for_rows_and_parts(args.edges, hub, threads, rows, part);
}

void message(const MessageArgs& args, int threads) {
  if (args.width == 0) return;
  const Kernels& isa = kernels();
  const int64_t scratch = isa.message_scratch(args);
  for_rows_and_parts(
      args.edges, kHubEdges, threads,
      [&](int64_t r0, int64_t r1) { isa.message_rows(args, r0, r1, thread_scratch(scratch)); },
      [&](int64_t row, int64_t e0, int64_t e1) {
        isa.message_part(args, row, e0, e1, thread_scratch(scratch));
      });
}

void aggregate(const AggregateArgs& args, int threads) {
  if (args.message.width == 0) return;
  const Kernels& isa = kernels();
  const Edges& edges = args.message.edges;
  const int64_t scratch = isa.aggregate_scratch(args);
  const auto rows = [&](int64_t r0, int64_t r1) {
    isa.aggregate_rows(args, r0, r1, thread_scratch(scratch));
  };
  const Hubs hubs(edges, for_rows(edges, kHubEdges, threads, rows), kHubEdges);
  if (hubs.count() > 0) aggregate_hubs(args, hubs, scratch, threads);
}

void linear(const LinearArgs& args, int threads) {
  if (args.columns == 0) return;
  const Kernels& isa = kernels();
  for_edges(args.rows, threads, [&](int64_t r0, int64_t r1) { isa.linear_rows(args, r0, r1); });
}

void edge_linear(const EdgeLinearArgs& args, int threads) {
  if (args.columns == 0) return;
  const Kernels& isa = kernels();
  const int64_t scratch = isa.edge_linear_scratch(args);
  for_edges(args.message.edges.rows, threads,
            [&](int64_t r0, int64_t r1) { isa.edge_linear_rows(args, r0, r1, thread_scratch(scratch)); });
}

void gather(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes,
            const void* index, int index_type, int64_t edges, int threads) {
  if (row_bytes == 0) return;
  for_edges(edges, threads, [&](int64_t e0, int64_t e1) {
    kernels().copy_rows(out, out_stride, x, x_stride, row_bytes, index, index_type, e0, e1, edges);
  });
}

void repeat(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes,
            const int64_t* rowptr, int64_t rows, int threads) {
  if (row_bytes == 0) return;
  Edges edges;
  edges.rowptr = rowptr;
  edges.rows = rows;
  const Kernels& isa = kernels();
  const auto rows_of = [&](int64_t r0, int64_t r1) {
    isa.repeat_rows(out, out_stride, x, x_stride, row_bytes, rowptr, r0, r1);
  };
  const auto part = [&](int64_t row, int64_t e0, int64_t e1) {
    const int64_t span[2] = {e0, e1};  // a rowptr of one row
    isa.repeat_rows(out + e0 * out_stride, out_stride, x + row * x_stride, x_stride, row_bytes, span, 0, 1);
  };
  for_rows_and_parts(edges, kHubEdges, threads, rows_of, part);
}

}  // namespace fg

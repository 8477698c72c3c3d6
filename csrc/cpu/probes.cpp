// What this machine's memory can do: the yardstick of every kernel.
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cpu/isa.h"
#include "cpu/operators.h"
#include "cpu/parallel.h"

namespace fg {
namespace {

constexpr int kRuns = 5;
constexpr int64_t kChunkBytes = 1 << 18;

template <class F>
double best_seconds(const F& run) {
  double best = 1e30;
  for (int i = 0; i < kRuns; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

}  // namespace

double probe_triad(int64_t bytes, int threads) {
  const int64_t count = bytes / 3 / static_cast<int64_t>(sizeof(double));
  std::vector<double> a(static_cast<size_t>(count)), b(a), c(a);
  const int64_t chunk = kChunkBytes / static_cast<int64_t>(sizeof(double));
  const double seconds = best_seconds([&] {
    parallel_for((count + chunk - 1) / chunk, threads, [&](int64_t p) {
      const int64_t end = std::min((p + 1) * chunk, count);
      for (int64_t i = p * chunk; i < end; ++i) a[i] = b[i] + 3.0 * c[i];
    });
  });
  return static_cast<double>(count) * 3 * sizeof(double) / seconds;
}

double probe_rows(int64_t row_bytes, int64_t bytes, int64_t reads, int threads) {
  const int64_t rows = std::max<int64_t>(bytes / row_bytes, 1);
  std::unique_ptr<char, decltype(&std::free)> x(
      static_cast<char*>(std::aligned_alloc(64, static_cast<size_t>(rows * row_bytes))), &std::free);
  std::fill(x.get(), x.get() + rows * row_bytes, 0);
  std::vector<int32_t> index(static_cast<size_t>(reads));
  std::mt19937_64 random(1);
  for (int32_t& each : index) each = static_cast<int32_t>(random() % static_cast<uint64_t>(rows));
  const int64_t chunk = std::max<int64_t>(kChunkBytes / row_bytes, 64), chunks = (reads + chunk - 1) / chunk;
  std::vector<float> sums(static_cast<size_t>(chunks));
  const double seconds = best_seconds([&] {
    parallel_for(chunks, threads, [&](int64_t p) {
      sums[p] = kernels().sum_lines(x.get(), row_bytes, index.data(), p * chunk,
                                    std::min((p + 1) * chunk, reads), reads);
    });
  });
  return static_cast<double>(reads) * static_cast<double>(row_bytes) / seconds;
}

}  // namespace fg

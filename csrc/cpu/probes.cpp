// What this machine's memory can do: the yardstick of every kernel. The arrays lie in huge pages where the
// system gives them, as the tables of the runtime do.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <new>
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

// Zeroed memory at a huge page's border.
class Memory {
 public:
  explicit Memory(int64_t bytes) : size_(static_cast<size_t>(bytes) + kHugePage) {
    mapped_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped_ == MAP_FAILED) throw std::bad_alloc();
    const uintptr_t start = (reinterpret_cast<uintptr_t>(mapped_) + kHugePage - 1) / kHugePage * kHugePage;
    data_ = reinterpret_cast<char*>(start);
#if defined(MADV_HUGEPAGE)
    madvise(data_, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
    for (int64_t i = 0; i < bytes; i += kPage) data_[i] = 0;
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { munmap(mapped_, size_); }

  char* data() const { return data_; }

 private:
  static constexpr size_t kHugePage = 2 << 20;
  static constexpr int64_t kPage = 4096;

  size_t size_;
  void* mapped_;
  char* data_;
};

}  // namespace

double probe_triad(int64_t bytes, int threads) {
  const int64_t count = bytes / 3 / static_cast<int64_t>(sizeof(double));
  const int64_t array = count * static_cast<int64_t>(sizeof(double));
  const Memory first(array), second(array), third(array);
  double* a = reinterpret_cast<double*>(first.data());
  const double* b = reinterpret_cast<double*>(second.data());
  const double* c = reinterpret_cast<double*>(third.data());
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
  const Memory x(rows * row_bytes);
  std::vector<int32_t> index(static_cast<size_t>(reads));
  std::mt19937_64 random(1);
  for (int32_t& each : index) each = static_cast<int32_t>(random() % static_cast<uint64_t>(rows));
  const int64_t chunk = std::max<int64_t>(kChunkBytes / row_bytes, 64), chunks = (reads + chunk - 1) / chunk;
  std::vector<float> sums(static_cast<size_t>(chunks));
  const double seconds = best_seconds([&] {
    parallel_for(chunks, threads, [&](int64_t p) {
      sums[p] = kernels().sum_lines(x.data(), row_bytes, index.data(), p * chunk,
                                    std::min((p + 1) * chunk, reads), reads);
    });
  });
  return static_cast<double>(reads) * static_cast<double>(row_bytes) / seconds;
}

}  // namespace fg

#include "cpu/parallel.h"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace fg {
namespace {

struct Job {
  const std::function<void(int64_t)>* body;
  int64_t chunks;
  std::atomic<int64_t> next{0};

  void work() {
    for (int64_t chunk = next.fetch_add(1); chunk < chunks; chunk = next.fetch_add(1)) (*body)(chunk);
  }
};

// Workers that sleep between jobs, so that they never compete with another pool's threads. One job at a time.
class Workers {
 public:
  void run(Job& job, int threads) {
    std::unique_lock<std::mutex> one(running_);
    grow(threads - 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      wanted_ = active_ = threads - 1;
      ++round_;
    }
    start_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return active_ == 0; });
  }

 private:
  void grow(int count) {
    for (int id = static_cast<int>(threads_.size()); id < count; ++id)
      threads_.emplace_back([this, id, seen = round_] { loop(id, seen); });
  }

  void loop(int id, uint64_t seen) {
    while (true) {
      Job* job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, [&] { return round_ != seen; });
        seen = round_;
        if (id >= wanted_) continue;
        job = job_;
      }
      job->work();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex running_, mutex_;
  std::condition_variable start_, done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  int wanted_ = 0, active_ = 0;
  uint64_t round_ = 0;
};

// Made on first use and never destroyed (its threads may outlive main); made anew in a forked child, where
// the parent's threads do not exist.
Workers& workers() {
  static std::mutex mutex;
  static Workers* pool = nullptr;
  static pid_t owner = 0;
  std::lock_guard<std::mutex> lock(mutex);
  if (pool == nullptr || owner != getpid()) {
    pool = new Workers;
    owner = getpid();
  }
  return *pool;
}

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// libgomp's entry point, which libiomp5 offers too. Looked up, not linked: a second OpenMP runtime in the
// process would spin against torch's. torch makes its own visible to the whole process when it is imported.
GompParallel gomp_parallel() {
  static std::atomic<GompParallel> found{nullptr};
  if (GompParallel known = found.load(std::memory_order_relaxed)) return known;
  auto symbol = reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  found.store(symbol, std::memory_order_relaxed);
  return symbol;
}

std::atomic<bool> own_workers{false};

}  // namespace

void set_own_workers(bool on) {
  own_workers = on;
}

const char* thread_pool() {
  return !own_workers && gomp_parallel() != nullptr ? "openmp" : "workers";
}

void parallel_for(int64_t chunks, int threads, const std::function<void(int64_t)>& body) {
  threads = static_cast<int>(std::min<int64_t>(threads, chunks));
  Job job{&body, chunks};
  if (threads <= 1) {
    job.work();
  } else if (GompParallel parallel = own_workers ? nullptr : gomp_parallel()) {
    parallel([](void* given) { static_cast<Job*>(given)->work(); }, &job, static_cast<unsigned>(threads), 0);
  } else {
    workers().run(job, threads);
  }
}

void* thread_scratch(int64_t bytes) {
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  thread_local std::unique_ptr<void, Free> buffer;
  thread_local int64_t size = 0;
  if (bytes > size) {
    const int64_t rounded = (bytes + 4095) / 4096 * 4096;
    buffer.reset(std::aligned_alloc(64, static_cast<size_t>(rounded)));
    if (!buffer) throw std::bad_alloc();
    size = rounded;
  }
  return buffer.get();
}

}  // namespace fg

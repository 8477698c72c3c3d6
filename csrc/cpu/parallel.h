// Running chunks of work on threads: torch's OpenMP pool where the process has one, else our own sleeping
// workers.
#pragma once

#include <cstdint>
#include <functional>

namespace fg {

// Call body(chunk) once for each chunk in [0, chunks), from at most `threads` threads; chunks are handed out
// in order, one at a time. With one thread everything runs on the caller. The body must not throw.
void parallel_for(int64_t chunks, int threads, const std::function<void(int64_t)>& body);

// "caller", "openmp" (the pool that torch uses) or "workers" (our own): what more than one thread runs on.
const char* thread_pool();

// Use our own workers although OpenMP is there (for tests and measurements).
void set_own_workers(bool on);

// A buffer of at least `bytes` bytes, aligned to 64, that belongs to the calling thread until its next call.
void* thread_scratch(int64_t bytes);

}  // namespace fg

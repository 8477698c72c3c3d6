#include "cpu/isa.h"

#include <atomic>
#include <stdexcept>

namespace fg {
namespace {

std::vector<const Kernels*> usable() {
  std::vector<const Kernels*> found = {kernels_baseline()};
#if defined(FG_HAVE_AVX2)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  if (avx2) found.push_back(kernels_avx2());
#endif
#if defined(FG_HAVE_AVX512)
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512) found.push_back(kernels_avx512());
#endif
  return found;
}

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> kernels{usable().back()};
  return kernels;
}

}  // namespace

const Kernels& kernels() {
  return *current().load(std::memory_order_relaxed);
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Kernels* each : usable()) names.emplace_back(each->name);
  return names;
}

void set_isa(const std::string& name) {
  std::string valid;
  for (const Kernels* each : usable()) {
    if (name == each->name) return current().store(each);
    valid += valid.empty() ? each->name : std::string(", ") + each->name;
  }
  throw std::invalid_argument("this processor and build know the instruction sets " + valid);
}

}  // namespace fg

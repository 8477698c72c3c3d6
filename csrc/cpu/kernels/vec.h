// Vectors of one instruction set: portable GCC/Clang vector types, loads that widen and stores that narrow.
//
// The kernel files are compiled once per instruction set (FG_ISA names it). Everything here has internal
// linkage and no standard header with inline functions is included: a function of the AVX-512 object that the
// linker shared with the baseline would crash older processors. tests/build checks the objects' symbols.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "cpu/kernels.h"

#define FG_INLINE inline __attribute__((always_inline))
#define FG_LAMBDA __attribute__((always_inline))  // after a lambda's parameters
#define FG_NOINLINE __attribute__((noinline))

namespace fg {
namespace FG_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

// Accum<T>::type is what values of T are computed in.
template <class T>
struct Accum {
  using type = float;
};
template <>
struct Accum<double> {
  using type = double;
};
template <class T>
using accum = typename Accum<T>::type;

// Call f with an element of the type that `dtype` numbers.
template <class F>
FG_INLINE void with_type(int dtype, F f) {
  switch (dtype) {
    case kFloat32:
      return f(float());
    case kFloat64:
      return f(double());
    case kBFloat16:
      return f(bfloat16());
    default:
      return f(float16());
  }
}

template <class A>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));

template <class A, int L>
struct VecOf {
  typedef A type __attribute__((vector_size(sizeof(A) * L)));
};
template <class A, int L>
using Vec = typename VecOf<A, L>::type;

template <class A>
struct IntOf {
  using type = int32_t;
};
template <>
struct IntOf<double> {
  using type = int64_t;
};
template <class A>
using int_like = typename IntOf<A>::type;

template <class A, int L>
FG_INLINE Vec<A, L> broadcast(A value) {
  return value - Vec<A, L>{};  // x - 0 is x for every x, -0 and NaN included
}

template <class V, class P>
FG_INLINE V load_bits(const P* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(V));
  return v;
}

template <class To, class From>
FG_INLINE To cast_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

// float16 -> float32 by arithmetic: shift into place, then rescale the exponent (also right for subnormals).
template <int L>
FG_INLINE Vec<float, L> half_to_float(Vec<uint32_t, L> h) {
  const Vec<uint32_t, L> magnitude = (h & 0x7fff) << 13, sign = (h & 0x8000) << 16;
  const Vec<float, L> scaled = cast_bits<Vec<float, L>>(magnitude) * 0x1p112f;
  const Vec<uint32_t, L> special = magnitude | 0x7f800000u;
  const Vec<uint32_t, L> bits = ((h & 0x7c00) == 0x7c00) ? special : cast_bits<Vec<uint32_t, L>>(scaled);
  return cast_bits<Vec<float, L>>(bits | sign);
}

// float32 -> float16, to nearest even: round by an addition that puts the last kept bit at the float's own
// last bit.
FG_INLINE uint16_t float_to_half(float value) {
  const uint32_t bits = cast_bits<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x47800000) return static_cast<uint16_t>(sign | 0x7c00);  // 65536 and more, infinity
  if (magnitude < 0x38800000) {                                              // below 2^-14: subnormal or zero
    const float shifted = cast_bits<float>(magnitude) + 0.5f;                // 0.5's last bit is 2^-24
    return static_cast<uint16_t>(sign | (cast_bits<uint32_t>(shifted) - 0x3f000000));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}

// Load L elements from any address and widen them.
template <int L>
FG_INLINE Vec<float, L> load(const float* p) {
  return load_bits<Vec<float, L>>(p);
}
template <int L>
FG_INLINE Vec<double, L> load(const double* p) {
  return load_bits<Vec<double, L>>(p);
}
template <int L>
FG_INLINE Vec<float, L> load(const bfloat16* p) {
  const auto wide = __builtin_convertvector(load_bits<Vec<uint16_t, L>>(p), Vec<uint32_t, L>);
  return cast_bits<Vec<float, L>>(wide << 16);
}
template <int L>
FG_INLINE Vec<float, L> load(const float16* p) {
#if defined(__AVX512F__)
  if constexpr (L == 16) return cast_bits<Vec<float, L>>(_mm512_cvtph_ps(load_bits<__m256i>(p)));
#endif
#if defined(__F16C__)
  if constexpr (L == 8) return cast_bits<Vec<float, L>>(_mm256_cvtph_ps(load_bits<__m128i>(p)));
#endif
  return half_to_float<L>(__builtin_convertvector(load_bits<Vec<uint16_t, L>>(p), Vec<uint32_t, L>));
}

// One element, widened, as a scalar.
FG_INLINE float element(const float* p) {
  return *p;
}
FG_INLINE double element(const double* p) {
  return *p;
}
FG_INLINE float element(const bfloat16* p) {
  return cast_bits<float>(static_cast<uint32_t>(p->bits) << 16);
}
FG_INLINE float element(const float16* p) {
#if defined(__F16C__)
  return _cvtsh_ss(p->bits);
#else
  return half_to_float<1>(Vec<uint32_t, 1>{p->bits})[0];
#endif
}

// Narrow L elements, to nearest even, and store them at any address.
template <int L>
FG_INLINE void store(float* p, Vec<float, L> v) {
  __builtin_memcpy(p, &v, sizeof(v));
}
template <int L>
FG_INLINE void store(double* p, Vec<double, L> v) {
  __builtin_memcpy(p, &v, sizeof(v));
}
template <int L>
FG_INLINE void store(bfloat16* p, Vec<float, L> v) {
  const auto bits = cast_bits<Vec<uint32_t, L>>(v);
  const Vec<uint32_t, L> rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Vec<uint32_t, L> quiet_nan = Vec<uint32_t, L>{} + 0x7fc0;
  const auto narrow = __builtin_convertvector((v == v) ? rounded : quiet_nan, Vec<uint16_t, L>);
  __builtin_memcpy(p, &narrow, sizeof(narrow));
}
template <int L>
FG_INLINE void store(float16* p, Vec<float, L> v) {
#if defined(__AVX512F__)
  if constexpr (L == 16) {
    const __m256i narrow = _mm512_cvtps_ph(cast_bits<__m512>(v), _MM_FROUND_TO_NEAREST_INT);
    __builtin_memcpy(p, &narrow, sizeof(narrow));
    return;
  }
#endif
#if defined(__F16C__)
  if constexpr (L == 8) {
    const __m128i narrow = _mm256_cvtps_ph(cast_bits<__m256>(v), _MM_FROUND_TO_NEAREST_INT);
    __builtin_memcpy(p, &narrow, sizeof(narrow));
    return;
  }
#endif
  for (int i = 0; i < L; ++i) p[i].bits = float_to_half(v[i]);
}

// Load n < L elements, the rest 0.
template <int L, class T>
FG_INLINE Vec<accum<T>, L> load_some(const T* p, int64_t n) {
  Vec<accum<T>, L> v = {};
  for (int i = 0; i < L; ++i)
    if (i < n) v[i] = load<1>(p + i)[0];
  return v;
}

// Lane i of the result is v[lane[i]].
template <int L, class V, class M>
FG_INLINE V shuffle(V v, M lane) {
#if defined(__clang__)
  V out;
  for (int i = 0; i < L; ++i) out[i] = v[lane[i]];
  return out;
#else
  return __builtin_shuffle(v, lane);
#endif
}

// Combine the lanes that are equal modulo `period` (a power of two), so that every lane holds its class's
// result.
template <class A, int L, class Op>
FG_INLINE Vec<A, L> fold(Vec<A, L> v, int period, Op op) {
  for (int step = L / 2; step >= period; step /= 2) {
    Vec<int_like<A>, L> lane;
    for (int i = 0; i < L; ++i) lane[i] = (i + step) % L;
    v = op(v, shuffle<L>(v, lane));
  }
  return v;
}

// The sum of all lanes, halving by rotations: in registers, where copies of halves would go through memory.
template <class A, int L, int STEP = L / 2>
FG_INLINE A sum_lanes(Vec<A, L> v) {
  if constexpr (STEP == 0) {
    return v[0];
  } else {
    Vec<int_like<A>, L> lane;
    for (int i = 0; i < L; ++i) lane[i] = (i + STEP) % L;
    return sum_lanes<A, L, STEP / 2>(v + shuffle<L>(v, lane));
  }
}

// exp(x) for x <= 0 (or NaN), within 2 ulp; results below 2^-126 become 0. The polynomial is Cephes' expf.
template <int L>
FG_INLINE Vec<float, L> exp_nonpositive(Vec<float, L> x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  const Vec<float, L> shifted = x * 1.44269504088896341f + kMagic;
  const Vec<float, L> n = shifted - kMagic;
  const Vec<float, L> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float, L> p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const auto exponent = (cast_bits<Vec<int32_t, L>>(shifted) - 0x4b400000 + 127) << 23;
  const Vec<float, L> result = p * cast_bits<Vec<float, L>>(exponent);
  return (x < -87.33f) ? Vec<float, L>{} : result;
}
template <int L>
FG_INLINE Vec<double, L> exp_nonpositive(Vec<double, L> x) {
  Vec<double, L> out;
  for (int i = 0; i < L; ++i) out[i] = __builtin_exp(x[i]);
  return out;
}

template <class A>
constexpr A kInfinity = __builtin_inff();

template <class T>
FG_INLINE T smaller(T a, T b) {
  return a < b ? a : b;
}
template <class T>
FG_INLINE T larger(T a, T b) {
  return a > b ? a : b;
}

// Edge e's source row.
struct Identity {};
FG_INLINE int64_t row_of(const int32_t* src, int64_t e) {
  return src[e];
}
FG_INLINE int64_t row_of(const int64_t* src, int64_t e) {
  return src[e];
}
FG_INLINE int64_t row_of(const Identity*, int64_t e) {
  return e;
}

FG_INLINE void prefetch(const void* p) {
  __builtin_prefetch(p, 0, 3);
}

}  // namespace
}  // namespace FG_ISA
}  // namespace fg

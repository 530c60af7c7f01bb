// Vectors of neighbouring channels, for source files that are compiled once per instruction set (CMakeLists.txt) with
//   MLIP_INSTRUCTION_SET   name of the set: portable, avx2, avx512
//   MLIP_VECTOR_BYTES      width of its vectors
//
// Such a file may not use an inline function of the standard library: the linker keeps one copy of such a function,
// perhaps this one, with instructions that another processor lacks. Everything here is therefore local to the file.
#pragma once

#include <cstdint>

#define MLIP_CONCATENATE_(a, b) a##b
#define MLIP_CONCATENATE(a, b) MLIP_CONCATENATE_(a, b)
#define MLIP_INLINE inline __attribute__((always_inline))
#define MLIP_INLINE_LAMBDA __attribute__((always_inline))

namespace mlip {
namespace {

using std::int32_t;
using std::int64_t;
using std::uint32_t;
using std::uint64_t;

/// L values side by side; L = 1 is the remainder of a loop over channels.
template <typename T, int L>
struct Vector {
  typedef T type __attribute__((vector_size(L * sizeof(T))));
  typedef T unaligned __attribute__((vector_size(L * sizeof(T)), aligned(alignof(T)), may_alias));
  static constexpr int width = L;
  static MLIP_INLINE type load(const T* p) { return *reinterpret_cast<const unaligned*>(p); }
  static MLIP_INLINE void store(T* p, type v) { *reinterpret_cast<unaligned*>(p) = v; }
  static MLIP_INLINE void add_to(type& partial_sums, type v) { partial_sums += v; }
};
template <typename T>
struct Vector<T, 1> {
  typedef T type;
  static constexpr int width = 1;
  static MLIP_INLINE T load(const T* p) { return *p; }
  static MLIP_INLINE void store(T* p, T v) { *p = v; }
  template <typename Sums>
  static MLIP_INLINE void add_to(Sums& partial_sums, T v) {
    partial_sums[0] += v;
  }
};

/// Two vectors: each coefficient that is spread over a vector's lanes then serves twice.
template <typename T, int L>
struct Pair {
  using Half = Vector<T, L>;
  struct type {
    typename Half::type a, b;
    MLIP_INLINE type operator*(const type& other) const { return {a * other.a, b * other.b}; }
    MLIP_INLINE type operator*(T factor) const { return {a * factor, b * factor}; }
    MLIP_INLINE type operator+(const type& other) const { return {a + other.a, b + other.b}; }
    MLIP_INLINE type& operator+=(const type& other) { return *this = *this + other; }
  };
  static constexpr int width = 2 * L;
  static MLIP_INLINE type load(const T* p) { return {Half::load(p), Half::load(p + L)}; }
  static MLIP_INLINE void store(T* p, const type& v) {
    Half::store(p, v.a);
    Half::store(p + L, v.b);
  }
  static MLIP_INLINE void add_to(typename Half::type& partial_sums, const type& v) { partial_sums += v.a + v.b; }
};

template <typename T>
constexpr int lanes = MLIP_VECTOR_BYTES / sizeof(T);

/// Calls body(first channel, vector type) over all channels: pairs of vectors, a vector, then single values.
template <typename T, bool with_pairs, typename Body>
MLIP_INLINE void for_channels(int64_t channels, Body&& body) {
  constexpr int L = lanes<T>;
  int64_t u = 0;
  if constexpr (with_pairs)
    for (; u + 2 * L <= channels; u += 2 * L) body(u, Pair<T, L>{});
  for (; u + L <= channels; u += L) body(u, Vector<T, L>{});
  for (; u < channels; ++u) body(u, Vector<T, 1>{});
}

/// Values in 128 bits: the part of a vector inside which values can be exchanged at full speed.
template <typename T>
constexpr int block = 16 / sizeof(T);

/// Both halves of a vector added, until one block is left.
template <typename T, int L>
MLIP_INLINE typename Vector<T, block<T>>::type fold(typename Vector<T, L>::type v) {
  if constexpr (L == block<T>) {
    return v;
  } else {
    union {
      typename Vector<T, L>::type whole;
      typename Vector<T, L / 2>::type half[2];
    } parts{v};
    return fold<T, L / 2>(parts.half[0] + parts.half[1]);
  }
}

template <typename T>
MLIP_INLINE T sum_of_lanes(const typename Vector<T, lanes<T>>::type& vector) {
  T total = 0;
  for (int lane = 0; lane < lanes<T>; ++lane) total += vector[lane];
  return total;
}

/// Σ_k a[k] b[k], in four sums, which do not wait for each other.
template <typename T>
MLIP_INLINE T dot(const T* a, const T* b, int64_t n) {
  constexpr int L = lanes<T>, several = 4;
  using V = Vector<T, L>;
  typename V::type sums[several] = {};
  int64_t k = 0;
  for (; k + several * L <= n; k += several * L)
    for (int part = 0; part < several; ++part) sums[part] += V::load(a + k + part * L) * V::load(b + k + part * L);
  for (; k + L <= n; k += L) sums[0] += V::load(a + k) * V::load(b + k);
  T total = sum_of_lanes<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  for (; k < n; ++k) total += a[k] * b[k];
  return total;
}

/// Sums over the lanes of `block` vectors at once: sums[k] = Σ_lanes vectors[k].
template <typename T>
MLIP_INLINE void sum_lanes(const T* vectors, T* sums) {
  constexpr int L = lanes<T>;
  using V = Vector<T, L>;
  if constexpr (block<T> == 4) {
    const auto a = fold<T, L>(V::load(vectors)), b = fold<T, L>(V::load(vectors + L));
    const auto c = fold<T, L>(V::load(vectors + 2 * L)), d = fold<T, L>(V::load(vectors + 3 * L));
    using I = typename Vector<int32_t, 4>::type;
    const auto ab = __builtin_shuffle(a, b, I{0, 2, 4, 6}) + __builtin_shuffle(a, b, I{1, 3, 5, 7});
    const auto cd = __builtin_shuffle(c, d, I{0, 2, 4, 6}) + __builtin_shuffle(c, d, I{1, 3, 5, 7});
    Vector<T, 4>::store(sums, __builtin_shuffle(ab, cd, I{0, 2, 4, 6}) + __builtin_shuffle(ab, cd, I{1, 3, 5, 7}));
  } else {
    const auto a = fold<T, L>(V::load(vectors)), b = fold<T, L>(V::load(vectors + L));
    using I = typename Vector<int64_t, 2>::type;
    Vector<T, 2>::store(sums, __builtin_shuffle(a, b, I{0, 2}) + __builtin_shuffle(a, b, I{1, 3}));
  }
}

/// sums[k] = Σ_lanes vectors[k] of n vectors.
template <typename T>
MLIP_INLINE void sum_all_lanes(const T* vectors, int64_t n, T* sums) {
  constexpr int L = lanes<T>;
  int64_t k = 0;
  for (; k + block<T> <= n; k += block<T>) sum_lanes(vectors + k * L, sums + k);
  for (; k < n; ++k) {
    T total = 0;
    for (int lane = 0; lane < L; ++lane) total += vectors[k * L + lane];
    sums[k] = total;
  }
}

}  // namespace
}  // namespace mlip

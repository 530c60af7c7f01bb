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

}  // namespace
}  // namespace mlip

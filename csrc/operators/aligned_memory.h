// Working memory of the CPU's kernels.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace mlip {

/// Zeros that begin where a cache line does: a vector of numbers that lies across two lines costs two accesses.
template <typename T>
class AlignedMemory {
 public:
  explicit AlignedMemory(std::size_t size = 0) : values_(size + line / sizeof(T), T(0)) {
    void* start = values_.data();
    std::size_t room = values_.size() * sizeof(T);
    data_ = static_cast<T*>(std::align(line, size * sizeof(T), start, room));
  }
  AlignedMemory(AlignedMemory&&) noexcept = default;
  AlignedMemory& operator=(AlignedMemory&&) noexcept = default;

  T* data() const { return data_; }

 private:
  static constexpr std::size_t line = 64;
  std::vector<T> values_;
  T* data_;
};

}  // namespace mlip

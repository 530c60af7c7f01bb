#include "model/kept_memory.h"

#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <unordered_map>

namespace mlip {
namespace {

constexpr std::size_t smallest = 64 * 1024;  // bytes; malloc keeps smaller blocks itself
constexpr std::uint64_t steps_unused = 8;
constexpr std::size_t widest_match = 2;  // largest block that is used, over the bytes that are asked for

thread_local bool inside_step = false;

/// Up to the next eighth of a power of two: numbers of edges, and so sizes, change a little from step to step.
std::size_t rounded(std::size_t bytes) {
  const std::size_t grain = std::bit_floor(bytes) / 8;
  return (bytes + grain - 1) / grain * grain;
}

/// In front of the allocator that torch has for the CPU.
class Allocator final : public c10::Allocator {
 public:
  /// Never destroyed: tensors may outlive everything else.
  static Allocator& instance() {
    static Allocator* const allocator = [] {
      auto* made = new Allocator(c10::GetCPUAllocator());
      // One that gives no bare memory stays alone. torch's own has priority 0.
      if (KeptMemory::keeps && made->base_->raw_deleter() != nullptr) c10::SetCPUAllocator(made, 1);
      return made;
    }();
    return *allocator;
  }

  c10::DataPtr allocate(std::size_t bytes) override {
    if (!inside_step || bytes < smallest) return base_->allocate(bytes);
    void* const data = take(bytes);
    return {data, data, raw_deleter(), c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return [](void* data) { instance().give_back(data); };
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { base_->copy_data(to, from, bytes); }

  void begin_step() {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++step_;
    std::erase_if(kept_, [&](const auto& block) {
      const bool old = block.second.step + steps_unused < step_;
      if (old) free(block.second.data, block.first);
      return old;
    });
  }
  void release() {
    const std::lock_guard<std::mutex> lock(mutex_);
    shrink_to(0);
  }
  KeptMemory::Bytes bytes() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {static_cast<std::int64_t>(bytes_in_use_), static_cast<std::int64_t>(bytes_kept_),
            static_cast<std::int64_t>(most_in_use_)};
  }

 private:
  struct Block {
    void* data;
    std::uint64_t step;  ///< of its last use
  };

  explicit Allocator(c10::Allocator* base) : base_(base) {}

  void* take(std::size_t asked) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::size_t bytes = rounded(asked);
    void* data;
    const auto found = kept_.lower_bound(bytes);
    if (found != kept_.end() && found->first <= widest_match * bytes) {
      bytes = found->first;
      data = found->second.data;
      bytes_kept_ -= bytes;
      kept_.erase(found);
    } else {
      const std::size_t in_use = bytes_in_use_ + bytes;
      shrink_to(room(std::max(most_in_use_, in_use), in_use));
      try {
        data = base_->raw_allocate(bytes);
      } catch (const c10::Error&) {
        // Once more with all that there is, and no byte more than needed: the error then names what was asked for.
        shrink_to(0);
        bytes = asked;
        data = base_->raw_allocate(bytes);
      }
    }
    in_use_.emplace(data, bytes);
    bytes_in_use_ += bytes;
    most_in_use_ = std::max(most_in_use_, bytes_in_use_);
    return data;
  }

  /// Also what `base_` allocated, for callers of raw_allocate: they do not know.
  void give_back(void* data) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = in_use_.find(data);
    if (found == in_use_.end()) return base_->raw_deallocate(data);
    const std::size_t bytes = found->second;
    in_use_.erase(found);
    bytes_in_use_ -= bytes;
    kept_.emplace(bytes, Block{data, step_});
    bytes_kept_ += bytes;
    shrink_to(room(most_in_use_, bytes_in_use_));
  }

  static std::size_t room(std::size_t most_in_use, std::size_t in_use) {
    return static_cast<std::size_t>(KeptMemory::most * static_cast<double>(most_in_use)) - in_use;
  }
  /// What was not used for longest goes first.
  void shrink_to(std::size_t bytes) {
    while (bytes_kept_ > bytes) {
      const auto oldest = std::min_element(kept_.begin(), kept_.end(),
                                           [](const auto& a, const auto& b) { return a.second.step < b.second.step; });
      free(oldest->second.data, oldest->first);
      kept_.erase(oldest);
    }
  }
  void free(void* data, std::size_t bytes) {
    base_->raw_deallocate(data);
    bytes_kept_ -= bytes;
  }

  c10::Allocator* const base_;
  std::mutex mutex_;
  std::multimap<std::size_t, Block> kept_;         ///< by bytes
  std::unordered_map<void*, std::size_t> in_use_;  ///< bytes of blocks
  std::size_t bytes_kept_ = 0, bytes_in_use_ = 0, most_in_use_ = 0;
  std::uint64_t step_ = 0;
};

}  // namespace

KeptMemory::Step::Step(bool keep) : begins_(keep && !inside_step) {
  if (!begins_) return;
  Allocator::instance().begin_step();
  inside_step = true;
}
KeptMemory::Step::~Step() {
  if (begins_) inside_step = false;
}

KeptMemory::Bytes KeptMemory::bytes() { return Allocator::instance().bytes(); }
void KeptMemory::release() { Allocator::instance().release(); }

}  // namespace mlip

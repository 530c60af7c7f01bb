// Memory of the tensors of a step on the CPU, kept for the next step.
//
// malloc gives large blocks back to the system as soon as they are free, and every operator of the next step then waits
// for the system to hand out, and zero, the same pages again. Inside of a KeptMemory::Step torch takes the tensors of
// this thread from blocks that were used before. The rest of the process, its malloc and the tensors of other threads,
// is as it was.
//
// Bounds: what is kept and what is in use never exceed `most` times the largest use so far; a block that eight steps
// did not use is given back; everything is given back when a model is destroyed, and where memory runs out.
#pragma once

#include <cstdint>

namespace mlip {

class KeptMemory {
 public:
  static constexpr double most = 1.25;  ///< bytes kept and in use, over the most that was in use at once
// Under a sanitizer every block is its own: a use after its end would not be seen otherwise.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static constexpr bool keeps = false;
#else
  static constexpr bool keeps = true;
#endif

  /// While an object of this class lives, CPU tensors of this thread are made from kept memory. They may outlive it.
  class Step {
   public:
    /// @param keep false: nothing changes, as for a model on another device
    explicit Step(bool keep);
    ~Step();
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

   private:
    bool begins_;
  };

  struct Bytes {
    std::int64_t in_use, kept, most_in_use;
  };
  /// Of the process.
  static Bytes bytes();
  /// Give back what is kept.
  static void release();
};

}  // namespace mlip

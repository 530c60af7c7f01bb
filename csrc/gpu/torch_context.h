// torch's own CUDA context, current for as long as an object of this class lives.
//
// torch works in the device's primary context, and expects it to be the current one. An engine may have made a context
// of its own current: OpenMM's CUDA platform creates one, and calls forces while it is. Allocations and kernels of
// torch would go there, and fail later, elsewhere.
#pragma once

#include <c10/core/Device.h>

namespace mlip::gpu {

class TorchContext {
 public:
  /// Does nothing for a device that is not NVIDIA's. @throws Error with the driver's number.
  explicit TorchContext(at::Device device);
  ~TorchContext();
  TorchContext(const TorchContext&) = delete;
  TorchContext& operator=(const TorchContext&) = delete;

 private:
  bool pushed_ = false;
};

}  // namespace mlip::gpu

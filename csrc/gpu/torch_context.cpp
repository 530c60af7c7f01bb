#include "gpu/torch_context.h"

#include <map>
#include <mutex>

#include "gpu/driver.h"

namespace mlip::gpu {
namespace {

/// Retained for the life of the process, as torch does.
void* primary_context(const Driver& nvidia, int ordinal) {
  static std::mutex mutex;
  static std::map<int, void*> contexts;
  const std::lock_guard<std::mutex> lock(mutex);
  void*& context = contexts[ordinal];
  if (context == nullptr) {
    int device = 0;
    nvidia.check(nvidia.device(&device, ordinal), "cuDeviceGet");
    nvidia.check(nvidia.retain_primary_context(&context, device), "cuDevicePrimaryCtxRetain");
  }
  return context;
}

}  // namespace

TorchContext::TorchContext(at::Device device) {
  if (!device.is_cuda()) return;
  const Driver* const nvidia = driver();
  if (nvidia == nullptr) return;  // a device of torch's "cuda" that is AMD's
  nvidia->check(nvidia->push_context(primary_context(*nvidia, device.index())), "cuCtxPushCurrent");
  pushed_ = true;
}

TorchContext::~TorchContext() {
  void* context = nullptr;
  if (pushed_) driver()->pop_context(&context);
}

}  // namespace mlip::gpu

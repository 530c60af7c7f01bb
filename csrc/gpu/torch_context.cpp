#include "gpu/torch_context.h"

#include <dlfcn.h>

#include <map>
#include <mutex>
#include <string>

#include "core/error.h"

namespace mlip::gpu {
namespace {

/// Of the driver's interface (cuda.h).
struct Driver {
  int (*get_device)(int* device, int ordinal) = nullptr;
  int (*retain)(void** context, int device) = nullptr;
  int (*push)(void* context) = nullptr;
  int (*pop)(void** context) = nullptr;

  Driver() {
    void* const library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == nullptr) return;  // a device of torch's "cuda" that is AMD's
    find(library, "cuDeviceGet", get_device);
    find(library, "cuDevicePrimaryCtxRetain", retain);
    find(library, "cuCtxPushCurrent_v2", push);
    find(library, "cuCtxPopCurrent_v2", pop);
  }

  template <typename Function>
  static void find(void* library, const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(dlsym(library, name));
    if (function == nullptr) throw Error(std::string("NVIDIA's driver (libcuda.so.1) has no function ") + name);
  }

  static void check(int code, const char* function) {
    if (code != 0) throw Error(std::string(function) + " failed with CUDA error " + std::to_string(code));
  }
};

const Driver& driver() {
  static const Driver found;
  return found;
}

/// Retained for the life of the process, as torch does.
void* primary_context(int ordinal) {
  static std::mutex mutex;
  static std::map<int, void*> contexts;
  const std::lock_guard<std::mutex> lock(mutex);
  void*& context = contexts[ordinal];
  if (context == nullptr) {
    int device = 0;
    Driver::check(driver().get_device(&device, ordinal), "cuDeviceGet");
    Driver::check(driver().retain(&context, device), "cuDevicePrimaryCtxRetain");
  }
  return context;
}

}  // namespace

TorchContext::TorchContext(at::Device device) {
  if (!device.is_cuda() || driver().push == nullptr) return;
  Driver::check(driver().push(primary_context(device.index())), "cuCtxPushCurrent");
  pushed_ = true;
}

TorchContext::~TorchContext() {
  void* context = nullptr;
  if (pushed_) driver().pop(&context);
}

}  // namespace mlip::gpu

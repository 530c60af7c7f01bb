#include "gpu/driver.h"

#include <optional>
#include <string>

#include "core/error.h"
#include "gpu/shared_library.h"

namespace mlip::gpu {
namespace {

std::optional<Driver> look_up() {
  void* const library = open_first({"libcuda.so.1"});
  if (library == nullptr) return std::nullopt;
  Driver found{};
  find(library, "cuDeviceGet", found.device);
  find(library, "cuDeviceGetAttribute", found.attribute);
  find(library, "cuDevicePrimaryCtxRetain", found.retain_primary_context);
  find(library, "cuCtxPushCurrent_v2", found.push_context);
  find(library, "cuCtxPopCurrent_v2", found.pop_context);
  find(library, "cuCtxGetDevice", found.context_device);
  find(library, "cuModuleLoadData", found.load);
  find(library, "cuModuleGetFunction", found.function);
  find(library, "cuLaunchKernel", found.launch);
  find(library, "cuGetErrorString", found.error_text);
  return found;
}

}  // namespace

void Driver::check(int code, const char* what) const {
  if (code == 0) return;
  const char* text = nullptr;
  error_text(code, &text);
  throw Error(std::string("GPU: ") + what +
              " failed: " + (text != nullptr ? text : "CUDA error " + std::to_string(code)));
}

const Driver* driver() {
  static const std::optional<Driver> found = look_up();
  return found ? &*found : nullptr;
}

}  // namespace mlip::gpu

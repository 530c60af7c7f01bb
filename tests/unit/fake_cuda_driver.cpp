// The part of NVIDIA's driver (libcuda.so.1) that keeps a stack of current contexts, for torch_context_tests.cpp.
#include <cstdint>
#include <vector>

namespace {

std::vector<void*> stack;
int n_retained = 0;
int device_that_fails = -1;

}  // namespace

extern "C" {

int cuDeviceGet(int* device, int ordinal) {
  *device = 100 + ordinal;
  return 0;
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
  if (device == device_that_fails) return 2;
  ++n_retained;
  *context = reinterpret_cast<void*>(static_cast<std::intptr_t>(device));
  return 0;
}

int cuCtxPushCurrent_v2(void* context) {
  stack.push_back(context);
  return 0;
}

int cuCtxPopCurrent_v2(void** context) {
  *context = stack.back();
  stack.pop_back();
  return 0;
}

int cuGetErrorString(int code, const char** text) {
  if (code != 2) return 1;
  *text = "out of memory";
  return 0;
}

// What kernels need: looked up with the rest, and not called.
int cuDeviceGetAttribute(int*, int, int) { return 1; }
int cuCtxGetDevice(int*) { return 1; }
int cuModuleLoadData(void**, const void*) { return 1; }
int cuModuleGetFunction(void**, void*, const char*) { return 1; }
int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**) {
  return 1;
}

// For the test.
int fake_depth() { return static_cast<int>(stack.size()); }
int fake_current() { return stack.empty() ? 0 : static_cast<int>(reinterpret_cast<std::intptr_t>(stack.back())); }
int fake_retained() { return n_retained; }
void fake_fail(int device) { device_that_fails = device; }
}

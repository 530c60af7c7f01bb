// The part of NVIDIA's driver (libcuda.so.1) that keeps books, for gpu_runtime_tests.cpp: contexts, as a stack for each
// thread, the images that it is given to load, and launches.
#include <cstdint>
#include <string>
#include <vector>

namespace {

constexpr int no_context = 201, no_image_for_this_device = 209;  // of cuda.h

thread_local std::vector<void*> stack;
int n_retained = 0;
int device_that_fails = -1;
std::string refused = "(nothing)";
std::vector<std::string> loaded;
int n_launched = 0;

int current() { return static_cast<int>(reinterpret_cast<std::intptr_t>(stack.back())); }

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
  if (code == 2) *text = "out of memory";
  if (code == no_context) *text = "invalid device context";
  if (code == no_image_for_this_device) *text = "no kernel image is available for execution on the device";
  return 0;
}

int cuCtxGetDevice(int* device) {
  if (stack.empty()) return no_context;
  *device = current();
  return 0;
}

int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? 9 : 0;  // compute capability 9.0
  return 0;
}

int cuModuleLoadData(void** module, const void* image) {
  if (stack.empty()) return no_context;
  const std::string text = static_cast<const char*>(image);
  if (text.find(refused) != std::string::npos) return no_image_for_this_device;
  loaded.push_back(text);
  *module = &loaded;
  return 0;
}

int cuModuleGetFunction(void** function, void* module, const char*) {
  *function = module;
  return 0;
}

int cuLaunchKernel(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**) {
  if (stack.empty()) return no_context;
  ++n_launched;
  return 0;
}

// For the test.
int fake_depth() { return static_cast<int>(stack.size()); }
int fake_current() { return stack.empty() ? 0 : current(); }
int fake_retained() { return n_retained; }
void fake_fail(int device) { device_that_fails = device; }
void fake_refuse(const char* part) { refused = part; }
const char* fake_last_loaded() { return loaded.empty() ? "" : loaded.back().c_str(); }
int fake_launched() { return n_launched; }
}

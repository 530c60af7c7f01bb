// gpu/torch_context.h on a driver that only keeps its stack of contexts. In a process of its own, where nothing else
// asks for a driver.
#include <dlfcn.h>

#include "gpu/torch_context.h"
#include "unit/expect.h"

namespace {

using mlip::gpu::TorchContext;
using mlip::testing::expect;
using mlip::testing::expect_error;

template <typename Function>
Function* of_driver(void* driver, const char* name) {
  return reinterpret_cast<Function*>(dlsym(driver, name));
}

void test_stack(void* driver) {
  auto* const depth = of_driver<int()>(driver, "fake_depth");
  auto* const current = of_driver<int()>(driver, "fake_current");
  int engine = 7;
  of_driver<int(void*)>(driver, "cuCtxPushCurrent_v2")(&engine);  // an engine's own context
  {
    const TorchContext none{at::Device("cpu")};
    expect(depth() == 1, "nothing is done for the CPU");
    const TorchContext first{at::Device("cuda:0")};
    expect(depth() == 2 && current() == 100, "the primary context of GPU 0 is current");
    {
      const TorchContext second{at::Device("cuda:1")};
      expect(depth() == 3 && current() == 101, "then that of GPU 1");
    }
    expect(depth() == 2 && current() == 100, "and again that of GPU 0");
    of_driver<void(int)>(driver, "fake_fail")(102);
    expect_error([] { const TorchContext third{at::Device("cuda:2")}; },
                 "GPU: cuDevicePrimaryCtxRetain failed: out of memory");
    expect(depth() == 2, "what failed is not on the stack");
    const TorchContext again{at::Device("cuda:0")};
    expect(of_driver<int()>(driver, "fake_retained")() == 2, "a context is retained once");
  }
  expect(depth() == 1, "the engine's context is current again");
}

}  // namespace

int main(int, char** arguments) {
  void* const driver = dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL);  // found again as libcuda.so.1
  expect(driver != nullptr, "the driver of the test is loaded");
  if (driver != nullptr) test_stack(driver);
  return mlip::testing::report();
}

// csrc/gpu on a driver, a compiler and a torch that only keep books (fake_cuda_*.cpp): which context is current, which
// compiler is taken, what is kept and what is compiled again. In a process of its own, where nothing else asks for
// them.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "gpu/runtime.h"
#include "gpu/torch_context.h"
#include "unit/expect.h"

namespace {

using mlip::gpu::TorchContext;
using mlip::testing::expect;
using mlip::testing::expect_error;

template <typename Function>
Function* of_library(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

void test_stack(void* driver) {
  auto* const depth = of_library<int()>(driver, "fake_depth");
  auto* const current = of_library<int()>(driver, "fake_current");
  int engine = 7;
  of_library<int(void*)>(driver, "cuCtxPushCurrent_v2")(&engine);  // an engine's own context
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
    of_library<void(int)>(driver, "fake_fail")(102);
    expect_error([] { const TorchContext third{at::Device("cuda:2")}; },
                 "GPU: cuDevicePrimaryCtxRetain failed: out of memory");
    expect(depth() == 2, "what failed is not on the stack");
    const TorchContext again{at::Device("cuda:0")};
    expect(of_library<int()>(driver, "fake_retained")() == 2, "a context is retained once");
  }
  expect(depth() == 1, "the engine's context is current again");
}

/// On a thread that has never had a context, as that of an exchange relay or of torch's backward pass.
void test_launch_on_a_new_thread(void* driver) {
  auto* const launched = of_library<int()>(driver, "fake_launched");
  std::string failure;
  std::thread([&] {
    try {
      const auto kernel = mlip::gpu::runtime().kernel("on a new thread", "f", at::Device("cuda:0"));
      const int argument = 1;
      kernel->launch(1, 32, 0, &argument);
    } catch (const std::exception& error) {
      failure = error.what();
    }
  }).join();
  expect(launched() == 1, "a kernel is launched on a new thread: " + failure);
}

void test_compiler(void* torchs) {
  expect(mlip::gpu::has_kernels(at::Device("cuda:0")), "kernels can run");
  const std::string code = mlip::gpu::compile("text", "sm_90");
  expect(code == "torch 12.8 --gpu-architecture=sm_90: text", "torch's own compiler is taken: " + code);
  expect(dlsym(RTLD_DEFAULT, "nvrtcVersion") == nullptr, "its symbols are given to nobody else");
  const auto compiled_for = [](const char* architecture) { return mlip::gpu::compile("", architecture); };
  expect(compiled_for("sm_86") == "torch 12.8 --gpu-architecture=sm_80: ", "machine code of the same generation");
  expect(compiled_for("sm_121") == "torch 12.8 --gpu-architecture=compute_90: ", "assembly for a new generation");
  expect(mlip::gpu::runs_code_for("sm_80", "sm_86") && mlip::gpu::runs_code_for("sm_90", "sm_90") &&
             mlip::gpu::runs_code_for("sm_100", "sm_103"),
         "machine code of the same generation runs");
  expect(!mlip::gpu::runs_code_for("sm_80", "sm_90") && !mlip::gpu::runs_code_for("sm_86", "sm_80") &&
             !mlip::gpu::runs_code_for("x86-64", "sm_90") && !mlip::gpu::runs_code_for("sm_120", "sm_100"),
         "that of another, or for a newer GPU, does not");
  expect(compiled_for("sm_70") == "torch 12.8 --gpu-architecture=sm_70: ", "an old GPU is for the compiler to refuse");

  auto* const compiled = of_library<int()>(torchs, "fake_compiled");
  auto* const release = of_library<void(int, int)>(torchs, "fake_release");
  const int before = compiled();
  for (int repeat = 0; repeat < 2; ++repeat) mlip::gpu::compiled_or_cached("kept", "sm_90");
  expect(compiled() == before + 1, "code is compiled once");
  release(13, 0);
  mlip::gpu::compiled_or_cached("kept", "sm_90");
  expect(compiled() == before + 2, "and once more by another release of the compiler");
  release(12, 8);
}

void test_code_that_the_driver_refuses(void* driver, void* torchs) {
  auto* const refuse = of_library<void(const char*)>(driver, "fake_refuse");
  auto* const last_loaded = of_library<const char*()>(driver, "fake_last_loaded");
  auto* const compiled = of_library<int()>(torchs, "fake_compiled");
  mlip::gpu::compiled_or_cached("of another driver", "sm_90");
  const int before = compiled();
  refuse("of another driver");
  expect_error([] { mlip::gpu::runtime().kernel("of another driver", "f", at::Device("cuda:0")); },
               "loading compiled kernels failed: no kernel image is available");
  expect(compiled() == before + 1, "what is refused is compiled again");
  refuse("(nothing)");
  mlip::gpu::runtime().kernel("of another driver", "f", at::Device("cuda:0"));
  expect(compiled() == before + 1, "from the folder");
  expect(std::string(last_loaded()).find("of another driver") != std::string::npos, "and loaded");
}

}  // namespace

/// The arguments are the fake driver, torch, torch's compiler and another compiler, found again by their names.
int main(int n, char** arguments) {
  void* libraries[4] = {};
  for (int k = 0; k < 4 && k + 1 < n; ++k) {
    libraries[k] = dlopen(arguments[k + 1], RTLD_NOW | RTLD_LOCAL);
    expect(libraries[k] != nullptr, "a library of the test is loaded");
    if (libraries[k] == nullptr) return mlip::testing::report();
  }
  const auto folder = std::filesystem::temp_directory_path() / ("mlip-gpu-tests-" + std::to_string(getpid()));
  setenv("XDG_CACHE_HOME", folder.c_str(), 1);
  test_launch_on_a_new_thread(libraries[0]);
  test_compiler(libraries[2]);
  test_code_that_the_driver_refuses(libraries[0], libraries[2]);
  test_stack(libraries[0]);
  std::filesystem::remove_all(folder);
  return mlip::testing::report();
}

// Runs the GPU kernels of csrc/operators on a CPU, for tests on machines without a GPU: the very texts that NVIDIA's
// compiler gets are compiled by the host's, behind a few definitions, and executed thread by thread.
//
// The lanes of a warp are coroutines that meet at each shuffle, as they do on a GPU; a lane that ends while others wait
// is an error. Shared memory holds NaN before a block runs. Warps run one after the other: the kernels use no barrier
// of a block. Loaded by tests/unit/test_gpu_kernels.py, to which it gives the operators `mlip_gpu_emulator::...`.
#include <dlfcn.h>
#include <torch/script.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <regex>

#include "core/error.h"
#include "gpu/runtime.h"
#include "operators/gpu.h"
#include "unit/emulated_device.h"

namespace {

constexpr int warp_size = 32;
constexpr int shared_values = 48 * 1024 / sizeof(double);

const char* const prelude = R"(
#include <cmath>
#include <cstring>
using std::fma;
using std::sqrt;
struct Dimensions { unsigned x, y, z; };
extern "C" { Dimensions threadIdx, blockIdx, blockDim; void (*emulator_meet)(); char emulator_slots[32][8]; }
#define __global__
#define __device__
#define __shared__
#define __constant__ static
#define __forceinline__ inline
template <typename T> T __ldg(const T* p) { return *p; }
template <typename T> T __shfl_xor_sync(unsigned, T value, int distance) {
  const unsigned lane = threadIdx.x % 32;
  std::memcpy(emulator_slots[lane], &value, sizeof value);
  emulator_meet();
  T other;
  std::memcpy(&other, emulator_slots[lane ^ distance], sizeof other);
  emulator_meet();
  return other;
}
)";

/// A compiled text and what the emulator sets in it.
struct Program {
  struct Dimensions {
    unsigned x, y, z;
  };
  void* library;
  Dimensions *thread, *block, *block_size;
  double* shared;

  explicit Program(const std::string& source) {
    static int count = 0;
    const std::filesystem::path folder = std::filesystem::temp_directory_path();
    const std::string stem =
        (folder / ("mlip-emulator-" + std::to_string(getpid()) + "-" + std::to_string(count++))).string();
    std::ofstream file(stem + ".cpp");
    file << prelude << source << "\ndouble shared_memory[" << shared_values << "];\n";
    const std::regex kernel("extern \"C\" __global__ void (\\w+)\\(const (\\w+) a\\)");
    for (std::sregex_iterator match(source.begin(), source.end(), kernel), end; match != end; ++match)
      file << "extern \"C\" void call_" << (*match)[1] << "(const void* a) { " << (*match)[1] << "(*static_cast<const "
           << (*match)[2] << "*>(a)); }\n";
    file.close();
    const std::string command = "c++ -std=c++17 -O1 -shared -fPIC -o " + stem + ".so " + stem + ".cpp";
    if (std::system(command.c_str()) != 0) throw mlip::Error("the emulator cannot compile " + stem + ".cpp");
    library = dlopen((stem + ".so").c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) throw mlip::Error(dlerror());
    std::filesystem::remove(stem + ".so");
    std::filesystem::remove(stem + ".cpp");
    find("threadIdx", thread);
    find("blockIdx", block);
    find("blockDim", block_size);
    find("shared_memory", shared);
  }

  template <typename T>
  void find(const char* name, T*& address) const {
    address = reinterpret_cast<T*>(dlsym(library, name));
    if (address == nullptr) throw mlip::Error(std::string("the emulator finds no ") + name);
  }
};

/// 32 coroutines.
class Warp {
 public:
  Warp() {
    for (auto& stack : stacks_) stack.resize(256 * 1024);
  }

  /// @param first number in its block of lane 0's thread
  void run(const Program& program, void (*function)(const void*), const void* arguments, unsigned first) {
    running = this;
    function_ = function;
    arguments_ = arguments;
    for (int lane = 0; lane < warp_size; ++lane) {
      finished_[lane] = false;
      getcontext(&lanes_[lane]);
      lanes_[lane].uc_stack.ss_sp = stacks_[lane].data();
      lanes_[lane].uc_stack.ss_size = stacks_[lane].size();
      lanes_[lane].uc_link = nullptr;
      makecontext(&lanes_[lane], &Warp::start, 0);
    }
    for (int n_finished = 0; n_finished < warp_size;) {
      n_finished = 0;
      for (lane_ = 0; lane_ < warp_size; ++lane_) {
        if (!finished_[lane_]) {
          program.thread->x = first + static_cast<unsigned>(lane_);
          swapcontext(&scheduler_, &lanes_[lane_]);
        }
        n_finished += finished_[lane_];
      }
      if (n_finished > 0 && n_finished < warp_size) throw mlip::Error("the warp diverged before a shuffle");
    }
  }

  static void meet() { swapcontext(&running->lanes_[running->lane_], &running->scheduler_); }

 private:
  static void start() {
    running->function_(running->arguments_);
    running->finished_[running->lane_] = true;
    meet();
  }

  static Warp* running;
  ucontext_t scheduler_, lanes_[warp_size];
  std::vector<char> stacks_[warp_size];
  bool finished_[warp_size];
  int lane_ = 0;
  void (*function_)(const void*) = nullptr;
  const void* arguments_ = nullptr;
};
Warp* Warp::running = nullptr;

class EmulatedKernel : public mlip::gpu::Kernel {
 public:
  EmulatedKernel(const Program& program, const std::string& name) : program_(program) {
    program.find(("call_" + name).c_str(), function_);
    void (**meet)();
    program.find("emulator_meet", meet);
    *meet = &Warp::meet;
  }

  void launch(std::int64_t n_blocks, int n_threads, int shared_bytes, const void* arguments) const override {
    TORCH_CHECK(n_threads % warp_size == 0 && n_threads <= 1024, "a block of ", n_threads, " threads");
    TORCH_CHECK(shared_bytes <= shared_values * static_cast<int>(sizeof(double)), shared_bytes, " bytes shared");
    Warp warp;
    program_.block_size->x = static_cast<unsigned>(n_threads);
    for (std::int64_t block = 0; block < n_blocks; ++block) {
      program_.block->x = static_cast<unsigned>(block);
      std::fill(program_.shared, program_.shared + shared_values, std::numeric_limits<double>::quiet_NaN());
      for (int first = 0; first < n_threads; first += warp_size)
        warp.run(program_, function_, arguments, static_cast<unsigned>(first));
    }
  }

 private:
  const Program& program_;
  void (*function_)(const void*) = nullptr;
};

class EmulatedRuntime : public mlip::gpu::Runtime {
 public:
  std::shared_ptr<const mlip::gpu::Kernel> kernel(const std::string& source, const std::string& name,
                                                  at::Device) override {
    last_source = source;
    auto& program = programs_[source];
    if (!program) program = std::make_unique<Program>(source);
    return std::make_shared<EmulatedKernel>(*program, name);
  }
  std::string last_source;

 private:
  std::map<std::string, std::unique_ptr<Program>> programs_;
};

EmulatedRuntime& emulator() {
  static EmulatedRuntime runtime;
  return runtime;
}

/// `operator_on_gpu` with its kernels emulated.
template <auto operator_on_gpu>
struct Emulated;
template <typename Result, typename... Arguments, Result (*operator_on_gpu)(Arguments...)>
struct Emulated<operator_on_gpu> {
  static Result run(Arguments... arguments) {
    mlip::gpu::use_runtime(&emulator());
    try {
      Result result = operator_on_gpu(arguments...);
      mlip::gpu::use_runtime(nullptr);
      return result;
    } catch (...) {
      mlip::gpu::use_runtime(nullptr);
      throw;
    }
  }
};

/// The text of the kernel that was asked for last.
std::string last_source() { return emulator().last_source; }

/// The emulated device, and on it the emulated kernels if they are wanted, for all that the process does afterwards.
void start_device(bool kernels) {
  using namespace mlip::gpu;
  mlip::testing::start_emulated_device();
  if (!kernels) return;
  use_runtime(&emulator());
  static torch::Library library(torch::Library::IMPL, "mlip", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  library.impl("edge_tensor_product", edge_tensor_product);
  library.impl("edge_tensor_product_backward", edge_tensor_product_backward);
  library.impl("edge_harmonics", edge_harmonics);
  library.impl("edge_harmonics_backward", edge_harmonics_backward);
  library.impl("symmetric_contraction", symmetric_contraction);
  library.impl("symmetric_contraction_backward", symmetric_contraction_backward);
}

torch::Tensor bytes(const std::string& code) {
  torch::Tensor result = torch::empty({static_cast<std::int64_t>(code.size())}, torch::kUInt8);
  std::copy(code.begin(), code.end(), result.data_ptr<std::uint8_t>());
  return result;
}

/// uint8, by NVIDIA's compiler for an architecture.
torch::Tensor machine_code(const std::string& source, const std::string& architecture) {
  return bytes(mlip::gpu::compile(source, architecture));
}

/// The same through the cache of compiled kernels.
torch::Tensor cached_machine_code(const std::string& source, const std::string& architecture) {
  return bytes(mlip::gpu::compiled_or_cached(source, architecture));
}

}  // namespace

TORCH_LIBRARY(mlip_gpu_emulator, library) {
  using namespace mlip::gpu;
  library.def(
      "edge_tensor_product(Tensor features, Tensor harmonics, Tensor radial, Tensor edge_index, int n_owned, "
      "int[] paths, Tensor coefficients, Tensor table, float step, Tensor? table_of_edge=None) -> Tensor[]",
      Emulated<edge_tensor_product>::run);
  library.def(
      "edge_tensor_product_backward(Tensor[] gradients, Tensor features, Tensor harmonics, Tensor radial, "
      "Tensor edge_index, int[] paths, Tensor coefficients, Tensor table, float step, bool features_wanted, "
      "Tensor? table_of_edge=None) -> (Tensor, Tensor, Tensor)",
      Emulated<edge_tensor_product_backward>::run);
  library.def("edge_harmonics(Tensor vectors, int l_max) -> (Tensor, Tensor)", Emulated<edge_harmonics>::run);
  library.def(
      "edge_harmonics_backward(Tensor distances_gradient, Tensor harmonics_gradient, Tensor vectors, int l_max) -> "
      "Tensor",
      Emulated<edge_harmonics_backward>::run);
  library.def(
      "symmetric_contraction(Tensor features, Tensor types, Tensor factors, Tensor terms, int n_outputs, "
      "Tensor coefficients) -> Tensor",
      Emulated<symmetric_contraction>::run);
  library.def(
      "symmetric_contraction_backward(Tensor gradient, Tensor features, Tensor types, Tensor factors, Tensor terms, "
      "Tensor coefficients) -> Tensor",
      Emulated<symmetric_contraction_backward>::run);
  library.def("start_device(bool kernels) -> ()", start_device);
  library.def("last_source() -> str", last_source);
  library.def("machine_code(str source, str architecture) -> Tensor", machine_code);
  library.def("cached_machine_code(str source, str architecture) -> Tensor", cached_machine_code);
}

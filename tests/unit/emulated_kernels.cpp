#include "unit/emulated_kernels.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <setjmp.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <regex>
#include <vector>

#include "core/error.h"

namespace mlip::testing {
namespace {

constexpr int warp_size = 32;
constexpr int shared_values = 48 * 1024 / sizeof(double);

const char* const prelude = R"(
#include <cmath>
#include <cstring>
using std::exp;
using std::fabs;
using std::fma;
using std::log1p;
using std::sqrt;
using std::tanh;
struct Dimensions { unsigned x, y, z; };
extern "C" { Dimensions threadIdx, blockIdx, blockDim; void (*emulator_meet)(); char emulator_slots[32][8]; }
#define __global__
#define __device__
#define __shared__
#define __constant__ static
#define __forceinline__ inline
template <typename T> T __ldg(const T* p) { return *p; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline unsigned __ballot_sync(unsigned, bool value) {
  emulator_slots[threadIdx.x % 32][0] = value;
  emulator_meet();
  unsigned result = 0;
  for (unsigned lane = 0; lane < 32; ++lane) result |= unsigned(emulator_slots[lane][0]) << lane;
  emulator_meet();
  return result;
}
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

/// 32 coroutines, which wait for their next warp where one ends: a launch has thousands of warps, and a step hundreds
/// of launches. Switches are jumps, since swapcontext asks the system for the signal mask each time.
class Warp {
 public:
  Warp() {
    for (auto& stack : stacks_) stack.resize(256 * 1024);
  }

  /// @param first number in its block of lane 0's thread
  void run(const Program& program, void (*function)(const void*), const void* arguments, unsigned first,
           bool backwards) {
    running = this;
    function_ = function;
    arguments_ = arguments;
    std::fill(finished_, finished_ + warp_size, false);
    for (int n_finished = 0; n_finished < warp_size;) {
      n_finished = 0;
      for (int turn = 0; turn < warp_size; ++turn) {
        lane_ = backwards ? warp_size - 1 - turn : turn;
        if (!finished_[lane_]) {
          program.thread->x = first + static_cast<unsigned>(lane_);
          resume();
        }
        n_finished += finished_[lane_];
      }
      if (n_finished > 0 && n_finished < warp_size) {
        std::fill(started_, started_ + warp_size, false);
        throw mlip::Error("the warp diverged before a shuffle");
      }
    }
  }

  static void meet() {
    if (_setjmp(running->lanes_[running->lane_]) == 0) _longjmp(running->scheduler_, 1);
  }

 private:
  /// A function of its own, without local values that a jump could leave undefined.
  void resume() {
    if (_setjmp(scheduler_) != 0) return;
    if (started_[lane_]) _longjmp(lanes_[lane_], 1);
    started_[lane_] = true;
    ucontext_t beginning;
    getcontext(&beginning);
    beginning.uc_stack.ss_sp = stacks_[lane_].data();
    beginning.uc_stack.ss_size = stacks_[lane_].size();
    beginning.uc_link = nullptr;
    makecontext(&beginning, &Warp::start, 0);
    setcontext(&beginning);
  }

  static void start() {
    for (;;) {
      running->function_(running->arguments_);
      running->finished_[running->lane_] = true;
      meet();
    }
  }

  static thread_local Warp* running;
  jmp_buf scheduler_, lanes_[warp_size];
  std::vector<char> stacks_[warp_size];
  bool started_[warp_size] = {}, finished_[warp_size] = {};
  int lane_ = 0;
  void (*function_)(const void*) = nullptr;
  const void* arguments_ = nullptr;
};
thread_local Warp* Warp::running = nullptr;

class EmulatedKernel : public mlip::gpu::Kernel {
 public:
  EmulatedKernel(const Program& program, const std::string& name, const bool& backwards)
      : program_(program), backwards_(backwards) {
    program.find(("call_" + name).c_str(), function_);
    void (**meet)();
    program.find("emulator_meet", meet);
    *meet = &Warp::meet;
  }

  void launch(std::int64_t n_blocks, int n_threads, int shared_bytes, const void* arguments) const override {
    TORCH_CHECK(n_threads % warp_size == 0 && n_threads <= 1024, "a block of ", n_threads, " threads");
    TORCH_CHECK(shared_bytes <= shared_values * static_cast<int>(sizeof(double)), shared_bytes, " bytes shared");
    static thread_local Warp warp;
    program_.block_size->x = static_cast<unsigned>(n_threads);
    for (std::int64_t turn = 0; turn < n_blocks; ++turn) {
      program_.block->x = static_cast<unsigned>(backwards_ ? n_blocks - 1 - turn : turn);
      std::fill(program_.shared, program_.shared + shared_values, std::numeric_limits<double>::quiet_NaN());
      for (int done = 0; done < n_threads; done += warp_size) {
        const int first = backwards_ ? n_threads - warp_size - done : done;
        warp.run(program_, function_, arguments, static_cast<unsigned>(first), backwards_);
      }
    }
  }

 private:
  const Program& program_;
  const bool& backwards_;
  void (*function_)(const void*) = nullptr;
};

class Emulator : public EmulatedRuntime {
 public:
  std::shared_ptr<const mlip::gpu::Kernel> kernel(const std::string& source, const std::string& name,
                                                  at::Device) override {
    last_source_ = source;
    auto& program = programs_[source];
    if (!program) {
      program = std::make_unique<Program>(source);
      sources_.push_back(source);
    }
    return std::make_shared<EmulatedKernel>(*program, name, backwards_);
  }
  const std::string& last_source() const override { return last_source_; }
  const std::vector<std::string>& sources() const override { return sources_; }
  void run_backwards(bool backwards) override { backwards_ = backwards; }

 private:
  bool backwards_ = false;
  std::string last_source_;
  std::vector<std::string> sources_;
  std::map<std::string, std::unique_ptr<Program>> programs_;
};

}  // namespace

EmulatedRuntime& emulated_kernels() {
  static Emulator runtime;
  return runtime;
}

}  // namespace mlip::testing

// NVIDIA's run-time compiler, found in the process, the cache of compiled kernels, and their launch.
#include "gpu/runtime.h"

#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "core/sha256.h"
#include "gpu/driver.h"
#include "gpu/shared_library.h"
#include "gpu/torch_context.h"

namespace mlip::gpu {
namespace {

// ---- the compiler (nvrtc.h) ----------------------------------------------------------------------------------

struct Compiler {
  int (*create)(void** program, const char* source, const char* name, int n_headers, const char* const* headers,
                const char* const* include_names);
  int (*destroy)(void** program);
  int (*compile)(void* program, int n_options, const char* const* options);
  int (*log_size)(void* program, std::size_t* size);
  int (*log)(void* program, char* text);
  int (*code_size)(void* program, std::size_t* size);
  int (*code)(void* program, char* bytes);
  int (*assembly_size)(void* program, std::size_t* size);
  int (*assembly)(void* program, char* text);
  int (*version)(int* major, int* minor);
  int (*n_architectures)(int* n);
  int (*architectures)(int* numbers);

  Compiler() {
    // The first is torch's own, which needs the release that torch was built with, wherever pip has put it: another
    // release may write code that this machine's driver does not load. It needs a driver too; without one, to compile
    // for a GPU that is elsewhere, any release will do.
    void* const library = open_first({"libcaffe2_nvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"});
    if (library == nullptr)
      throw Error(
          "GPU kernels: NVIDIA's run-time compiler (libnvrtc.so) is not found. It comes with the CUDA builds of torch; "
          "install one, or: pip install nvidia-cuda-nvrtc");
    find(library, "nvrtcCreateProgram", create);
    find(library, "nvrtcDestroyProgram", destroy);
    find(library, "nvrtcCompileProgram", compile);
    find(library, "nvrtcGetProgramLogSize", log_size);
    find(library, "nvrtcGetProgramLog", log);
    find(library, "nvrtcGetCUBINSize", code_size);
    find(library, "nvrtcGetCUBIN", code);
    find(library, "nvrtcGetPTXSize", assembly_size);
    find(library, "nvrtcGetPTX", assembly);
    find(library, "nvrtcVersion", version);
    find(library, "nvrtcGetNumSupportedArchs", n_architectures);
    find(library, "nvrtcGetSupportedArchs", architectures);
  }

  /// Such as "13.0".
  std::string release() const {
    int major = 0, minor = 0;
    version(&major, &minor);
    return std::to_string(major) + "." + std::to_string(minor);
  }

  /// What to compile for a GPU of this number, 90 of "sm_90". A GPU that is newer than the compiler runs machine code
  /// for an older one of its generation, and otherwise assembly ("PTX"), which the driver translates.
  std::string target(int number) const {
    int n = 0;
    n_architectures(&n);
    std::vector<int> known(static_cast<std::size_t>(n));
    architectures(known.data());
    int newest = 0;
    for (const int one : known)
      if (one <= number) newest = std::max(newest, one);
    if (newest == 0) return "sm_" + std::to_string(number);  // the compiler says what it thinks of that
    return (newest / 10 == number / 10 ? "sm_" : "compute_") + std::to_string(newest);
  }
};

const Compiler& compiler() {
  static const Compiler found;
  return found;
}

// ---- the driver and torch ------------------------------------------------------------------------------------

/// What kernels are loaded, and launched on torch's stream, with.
struct Launcher {
  const Driver* nvidia = driver();
  /// torch's, in its stable C interface: the stream that its own kernels go to.
  int (*current_stream)(std::int32_t device, void** stream);

  Launcher() {
    if (nvidia == nullptr) throw Error("GPU kernels: NVIDIA's driver (libcuda.so.1) is not found");
    void* const torch = open_first({"libtorch_cuda.so"});
    if (torch == nullptr) throw Error("GPU kernels: this torch is no CUDA build (libtorch_cuda.so is not found)");
    find(torch, "aoti_torch_get_current_cuda_stream", current_stream);
  }

  /// "sm_90" for the GPU whose context is current.
  std::string architecture() const {
    constexpr int major_attribute = 75, minor_attribute = 76;
    int device = 0, major = 0, minor = 0;
    nvidia->check(nvidia->context_device(&device), "cuCtxGetDevice");
    nvidia->check(nvidia->attribute(&major, major_attribute, device), "cuDeviceGetAttribute");
    nvidia->check(nvidia->attribute(&minor, minor_attribute, device), "cuDeviceGetAttribute");
    return "sm_" + std::to_string(major) + std::to_string(minor);
  }
};

const Launcher& launcher() {
  static const Launcher found;
  return found;
}

// ---- the cache of machine code -------------------------------------------------------------------------------

/// Empty where there is no home to keep it in.
std::filesystem::path cache_folder() {
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache != '\0')
    return std::filesystem::path(cache) / "mlip-deploy" / "kernels";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
    return std::filesystem::path(home) / ".cache" / "mlip-deploy" / "kernels";
  return {};
}

/// The file of the cache for a source; empty where there is no cache. Its name has the compiler's release in it: a
/// folder may be shared by machines whose drivers do not load each other's code.
std::filesystem::path place_of(const std::string& source, const std::string& architecture) {
  const std::filesystem::path folder = cache_folder();
  if (folder.empty()) return {};
  return folder / (sha256(architecture + " " + compiler().release() + "\n" + source) + ".cubin");
}

/// The code in a file of the cache, behind its digest; none, and no file, where the two do not fit.
std::optional<std::string> read_kept(const std::filesystem::path& kept) {
  std::ifstream file(kept, std::ios::binary);
  if (!file) return std::nullopt;
  std::string digest(sha256("").size(), '\0');
  file.read(digest.data(), static_cast<std::streamsize>(digest.size()));
  std::string code{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (sha256(code) == digest) return code;
  file.close();
  std::error_code ignored;
  std::filesystem::remove(kept, ignored);
  return std::nullopt;
}

// ---- kernels -------------------------------------------------------------------------------------------------

class CudaKernel : public Kernel {
 public:
  CudaKernel(void* function, at::Device device) : function_(function), device_(device) {}

  void launch(std::int64_t n_blocks, int n_threads, int shared_bytes, const void* arguments) const override {
    if (n_blocks == 0) return;
    // torch's guard would leave a new thread on device 0 without a context: it sees that the device is right already.
    const TorchContext current(device_);
    void* stream = nullptr;
    const Driver& nvidia = *launcher().nvidia;
    nvidia.check(launcher().current_stream(device_.index(), &stream), "the look-up of torch's current stream");
    void* parameters[] = {const_cast<void*>(arguments)};
    nvidia.check(nvidia.launch(function_, static_cast<unsigned>(n_blocks), 1, 1, static_cast<unsigned>(n_threads), 1, 1,
                               static_cast<unsigned>(shared_bytes), stream, parameters, nullptr),
                 "the launch of a kernel");
  }

 private:
  void* function_;
  at::Device device_;
};

class CudaRuntime : public Runtime {
 public:
  std::shared_ptr<const Kernel> kernel(const std::string& source, const std::string& name, at::Device device) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto& found = kernels_[{source, name, device.index()}];
    if (found) return found;
    const TorchContext current(device);
    const Driver& nvidia = *launcher().nvidia;
    // Modules live as long as the process: models come and go, and mostly come back.
    auto& module = modules_[{source, device.index()}];
    if (module == nullptr) {
      const std::string architecture = launcher().architecture();
      void* loaded = nullptr;
      // Code that was kept may be for another driver, on another machine with the same folder.
      if (nvidia.load(&loaded, compiled_or_cached(source, architecture).c_str()) != 0)
        nvidia.check(nvidia.load(&loaded, compiled_anew(source, architecture).c_str()), "loading compiled kernels");
      module = loaded;
    }
    void* function = nullptr;
    nvidia.check(nvidia.function(&function, module, name.c_str()), "looking up a kernel");
    return found = std::make_shared<CudaKernel>(function, device);
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<std::string, int>, void*> modules_;
  std::map<std::tuple<std::string, std::string, int>, std::shared_ptr<const Kernel>> kernels_;
};

std::atomic<Runtime*> replacement{nullptr};

/// 90 of "sm_90"; -1 of what names no GPU.
int number_of(const std::string& architecture) {
  return architecture.rfind("sm_", 0) == 0 ? std::atoi(architecture.c_str() + 3) : -1;
}

}  // namespace

std::string real_type(at::ScalarType type) {
  TORCH_CHECK(type == at::kFloat || type == at::kDouble, "GPU kernels: expected float32 or float64, found ", type);
  return std::string("typedef ") + (type == at::kFloat ? "float" : "double") + " real;\n";
}

std::string real_number(double value, at::ScalarType type) {
  char text[40];
  std::snprintf(text, sizeof text, type == at::kFloat ? "%af" : "%a", value);
  return std::string("real(") + text + ")";
}

std::string constant(const char* name, std::int64_t value) {
  return std::string("  static constexpr int ") + name + " = " + std::to_string(value) + ";\n";
}

std::string architecture(at::Device device) {
  const TorchContext current(device);
  return launcher().architecture();
}

bool runs_code_for(const std::string& compiled, const std::string& architecture) {
  const int code = number_of(compiled), gpu = number_of(architecture);
  return code >= 0 && code / 10 == gpu / 10 && code <= gpu;
}

std::string compile(const std::string& source, const std::string& architecture) {
  const Compiler& nvrtc = compiler();
  const std::string target = nvrtc.target(number_of(architecture));
  const bool for_machine = target.starts_with("sm_");
  void* program = nullptr;
  if (nvrtc.create(&program, source.c_str(), "mlip.cu", 0, nullptr, nullptr) != 0)
    throw Error("GPU kernels: the run-time compiler did not start");
  const std::string target_option = "--gpu-architecture=" + target;
  const char* const options[] = {target_option.c_str(), "--std=c++17"};
  const bool compiled = nvrtc.compile(program, 2, options) == 0;
  const auto text = [&](auto* size_of, auto* read) {
    std::size_t size = 0;
    size_of(program, &size);
    std::string result(size, '\0');
    read(program, result.data());
    return result;
  };
  const std::string result = !compiled     ? text(nvrtc.log_size, nvrtc.log)
                             : for_machine ? text(nvrtc.code_size, nvrtc.code)
                                           : text(nvrtc.assembly_size, nvrtc.assembly);
  nvrtc.destroy(&program);
  if (!compiled)
    throw Error("GPU kernels: NVIDIA's compiler refuses them for " + architecture + ". Please report this with:\n" +
                result);
  return result;
}

std::string compiled_or_cached(const std::string& source, const std::string& architecture) {
  if (const auto code = read_kept(place_of(source, architecture))) return *code;
  return compiled_anew(source, architecture);
}

std::string compiled_anew(const std::string& source, const std::string& architecture) {
  const std::string code = compile(source, architecture);
  const std::filesystem::path kept = place_of(source, architecture);
  if (kept.empty()) return code;
  std::error_code ignored;
  std::filesystem::create_directories(kept.parent_path(), ignored);
  // Ranks may write at once, those on other nodes too: the file appears under its name only when it is whole.
  std::string own = kept.string() + ".XXXXXX";
  const int descriptor = mkstemp(own.data());
  if (descriptor < 0) return code;
  ::close(descriptor);
  std::ofstream file(own, std::ios::binary);
  file << sha256(code) << code;
  file.close();
  if (file)
    std::filesystem::rename(own, kept, ignored);
  else
    std::filesystem::remove(own, ignored);
  return code;
}

Runtime& runtime() {
  if (Runtime* other = replacement.load()) return *other;
  static CudaRuntime cuda;
  return cuda;
}

void use_runtime(Runtime* other) { replacement.store(other); }

bool has_kernels(at::Device device) {
  if (replacement.load() != nullptr) return true;
  if (!device.is_cuda()) return false;
  static const std::string missing = [] {
    try {
      compiler();
      launcher();
      return std::string();
    } catch (const Error& failure) {
      return std::string(failure.what());
    }
  }();
  if (!missing.empty()) {
    TORCH_WARN_ONCE(missing, ". The model runs on torch's own operators, many times slower");
  }
  return missing.empty();
}

}  // namespace mlip::gpu

// What gpu_runtime_tests.cpp needs of NVIDIA's run-time compiler (nvrtc.h) and of a CUDA build of torch: a compiler
// that quotes its own name, its release and the source, and a stream. Built several times, under the names of several
// libraries.
#include <cstdint>
#include <cstring>
#include <string>

namespace {

int major = 12, minor = 8;
int n_compiled = 0;
std::string code;
constexpr int known[] = {75, 80, 90};

}  // namespace

extern "C" {

int nvrtcCreateProgram(void** program, const char* source, const char*, int, const char* const*, const char* const*) {
  code = source;
  *program = &code;
  return 0;
}
int nvrtcDestroyProgram(void**) { return 0; }
int nvrtcCompileProgram(void*, int, const char* const* options) {
  code = FAKE_NAME " " + std::to_string(major) + "." + std::to_string(minor) + " " + options[0] + ": " + code;
  ++n_compiled;
  return 0;
}
int nvrtcGetProgramLogSize(void*, std::size_t* size) { return *size = 0, 0; }
int nvrtcGetProgramLog(void*, char*) { return 0; }
int nvrtcGetCUBINSize(void*, std::size_t* size) { return *size = code.size(), 0; }
int nvrtcGetCUBIN(void*, char* bytes) { return std::memcpy(bytes, code.data(), code.size()), 0; }
int nvrtcGetPTXSize(void*, std::size_t* size) { return *size = code.size(), 0; }
int nvrtcGetPTX(void*, char* bytes) { return std::memcpy(bytes, code.data(), code.size()), 0; }
int nvrtcVersion(int* of_major, int* of_minor) { return *of_major = major, *of_minor = minor, 0; }
int nvrtcGetNumSupportedArchs(int* n) { return *n = static_cast<int>(sizeof known / sizeof known[0]), 0; }
int nvrtcGetSupportedArchs(int* numbers) { return std::memcpy(numbers, known, sizeof known), 0; }

int aoti_torch_get_current_cuda_stream(std::int32_t, void** stream) { return *stream = nullptr, 0; }

// For the test.
void fake_release(int of_major, int of_minor) { major = of_major, minor = of_minor; }
int fake_compiled() { return n_compiled; }
}

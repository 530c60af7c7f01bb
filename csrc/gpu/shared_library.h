// Libraries of NVIDIA and their functions, looked up in the process: none of their headers is needed to build.
#pragma once

#include <dlfcn.h>

#include <initializer_list>
#include <string>

#include "core/error.h"

namespace mlip::gpu {

/// The first of these libraries that can be loaded; null if none can. Its symbols stay its own: another library in the
/// process, such as OpenMM's, may want those of another release.
inline void* open_first(std::initializer_list<const char*> names) {
  for (const char* name : names)
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  return nullptr;
}

/// Function `name` of an open library as a pointer to `Function`. @throws Error if there is none.
template <typename Function>
void find(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  if (function == nullptr) throw Error(std::string("GPU: no function ") + name + " in NVIDIA's libraries");
}

}  // namespace mlip::gpu

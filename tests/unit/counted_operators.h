// How often torch's operators are called: what keeps the host waiting, or a GPU busy, can be counted without a GPU.
#pragma once

#include <ATen/record_function.h>

#include <map>
#include <memory>
#include <string>

namespace mlip::testing {

/// Counts calls on this thread for as long as it lives; one at a time.
class CountedOperators {
 public:
  CountedOperators()
      : handle_(at::addThreadLocalCallback(at::RecordFunctionCallback(&note).scopes({at::RecordScope::FUNCTION}))) {
    calls.clear();
  }
  ~CountedOperators() { at::removeCallback(handle_); }
  CountedOperators(const CountedOperators&) = delete;
  CountedOperators& operator=(const CountedOperators&) = delete;

  /// @param name such as "aten::mm"
  int operator[](const std::string& name) const { return calls[name]; }

 private:
  static std::unique_ptr<at::ObserverContext> note(const at::RecordFunction& function) {
    ++calls[function.name()];
    return nullptr;
  }
  static inline std::map<std::string, int> calls;
  at::CallbackHandle handle_;
};

}  // namespace mlip::testing

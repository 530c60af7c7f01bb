#include "core/native_operator.h"

#include <ATen/ATen.h>

#include <map>

namespace mlip {
namespace {

std::map<std::string, NativeFactory>& factories() {
  static std::map<std::string, NativeFactory> known;
  return known;
}

}  // namespace

RegisterNative::RegisterNative(const char* name, NativeFactory factory) { factories().emplace(name, factory); }

NativeFactory find_native(const std::string& name) {
  const auto found = factories().find(name);
  return found == factories().end() ? nullptr : found->second;
}

bool is_own(const at::Tensor& tensor) {
  return tensor.defined() && tensor.use_count() == 1 && tensor.storage().use_count() == 1 && tensor.is_contiguous();
}

void add_gradient(at::Tensor& sum, at::Tensor term) {
  if (!sum.defined())
    sum = std::move(term);
  else if (is_own(sum))
    sum.add_(term);
  else
    sum = sum + term;
}

}  // namespace mlip

#include "model/float32_products.h"

#include <ATen/Context.h>

#include <mutex>
#include <type_traits>
#include <utility>

#include "core/condition_variable.h"
#include "core/error.h"

namespace mlip {
namespace {

// torch 2.9 names back ends and precisions by strings, later releases by enumerators.

template <typename Precision, typename Kind, typename Operation>
auto read(Precision (at::Context::*get)(Kind, Operation) const, bool cuda) {
  const at::Context& torch = at::globalContext();
  if constexpr (std::is_enum_v<Kind>)
    return (torch.*get)(cuda ? Kind::CUDA : Kind::MKLDNN, Operation::MATMUL);
  else
    return (torch.*get)(cuda ? "cuda" : "mkldnn", "matmul");
}

template <typename Kind, typename Operation, typename Precision>
void write(void (at::Context::*set)(Kind, Operation, Precision), bool cuda, const std::decay_t<Precision>& value) {
  at::Context& torch = at::globalContext();
  if constexpr (std::is_enum_v<Kind>)
    (torch.*set)(cuda ? Kind::CUDA : Kind::MKLDNN, Operation::MATMUL, value);
  else
    (torch.*set)(cuda ? "cuda" : "mkldnn", "matmul", value);
}

template <typename Precision>
bool is_full(const Precision& value) {
  if constexpr (std::is_enum_v<Precision>)
    return value != Precision::TF32 && value != Precision::BF16;
  else
    return value != "tf32" && value != "bf16";
}

/// The setting under its old name, which torch refuses to tell where a script has used the new names.
const char* old_name() {
  try {
    switch (at::globalContext().float32MatmulPrecision()) {
      case at::Float32MatmulPrecision::HIGH:
        return "high";
      case at::Float32MatmulPrecision::MEDIUM:
        return "medium";
      default:
        return "highest";
    }
  } catch (const c10::Error&) {
    return "highest";
  }
}

class Setting {
 public:
  void enter(Products wanted) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return n_inside_ == 0 || active_ == wanted; });
    if (n_inside_++ > 0) return;
    active_ = wanted;
    cuda_ = read(&at::Context::float32Precision, true);
    mkldnn_ = read(&at::Context::float32Precision, false);
    written_ = wanted == Products::tf32 || !is_full(cuda_) || !is_full(mkldnn_);
    if (!written_) return;
    old_ = old_name();
    at::globalContext().setFloat32MatmulPrecision(wanted == Products::tf32 ? "high" : "highest");
  }

  void leave() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (--n_inside_ > 0) return;
      if (written_) {
        at::globalContext().setFloat32MatmulPrecision(old_);
        write(&at::Context::setFloat32Precision, true, cuda_);
        write(&at::Context::setFloat32Precision, false, mkldnn_);
      }
    }
    changed_.notify_all();
  }

 private:
  using Precision = decltype(read(&at::Context::float32Precision, true));
  std::mutex mutex_;
  std::condition_variable changed_;
  int n_inside_ = 0;
  Products active_ = Products::full;
  // What was set before the first came in:
  bool written_ = false;
  std::string old_;
  Precision cuda_{}, mkldnn_{};
};

Setting& setting() {
  static Setting only;
  return only;
}

}  // namespace

Products parse_products(const std::string& name) {
  if (name == "full") return Products::full;
  if (name == "tf32") return Products::tf32;
  throw Error("precision: '" + name + "' is not one of full, tf32");
}

const char* to_string(Products products) { return products == Products::tf32 ? "tf32" : "full"; }

ProductsScope::ProductsScope(Products wanted) { setting().enter(wanted); }
ProductsScope::~ProductsScope() { setting().leave(); }

}  // namespace mlip

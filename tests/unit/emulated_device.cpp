#include "unit/emulated_device.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/record_function.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>
#include <torch/version.h>

namespace mlip::testing {
namespace {

using at::Tensor;

constexpr auto type = c10::DeviceType::PrivateUse1;
const at::Device& device = emulated_device;

/// Of c10's own NoOpDeviceGuardImpl torch 2.9 lets nothing be derived.
struct Guard : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return testing::type; }
  at::Device exchangeDevice(at::Device) const override { return device; }
  at::Device getDevice() const override { return device; }
  void setDevice(at::Device) const override {}
  void uncheckedSetDevice(at::Device) const noexcept override {}
  c10::Stream getStream(at::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
};

struct Hooks : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return at::detail::getDefaultCPUGenerator();
  }
};

int allocations_left = -1;  // before one fails

struct Memory : c10::DeviceAllocator {
  c10::DataPtr allocate(std::size_t n) override {
    if (allocations_left >= 0)
      TORCH_CHECK_WITH(OutOfMemoryError, allocations_left-- > 0, "Emulated device out of memory. Tried to allocate ", n,
                       " bytes.");
    void* const address = c10::GetCPUAllocator()->raw_allocate(n);
    return {address, address, raw_deleter(), device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return c10::GetCPUAllocator()->raw_deleter(); }
  void copy_data(void* to, const void* from, std::size_t n) const override { default_copy_data(to, from, n); }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr&, c10::Stream) override {}
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex) override { return {}; }
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
};

Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, std::optional<at::ScalarType> scalar,
                     std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(sizes, strides, c10::GetAllocator(type), keys,
                                           c10::dtype_or_default(scalar));
}

Tensor empty(at::IntArrayRef sizes, std::optional<at::ScalarType> scalar, std::optional<at::Layout>,
             std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  constexpr c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_generic(sizes, c10::GetAllocator(type), keys, c10::dtype_or_default(scalar), format);
}

/// For as long as it lives, operators are not recorded: those of the CPU that stand for one of the device.
using WorkOfTheDevice = at::DisableRecordFunctionGuard;

/// The same memory as a tensor of the CPU.
Tensor on_cpu(const Tensor& tensor) {
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  const WorkOfTheDevice hidden;
  on_cpu(to).copy_(on_cpu(from));
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  at::native::resize_impl_cpu_(to.unsafeGetTensorImpl(), from.sizes(), std::nullopt);
  return copy_from(from, to, false);
}

const Tensor& resize(const Tensor& self, at::IntArrayRef sizes, std::optional<at::MemoryFormat>) {
  at::native::resize_impl_cpu_(self.unsafeGetTensorImpl(), sizes, std::nullopt);
  return self;
}

at::Scalar item(const Tensor& self) {
  const WorkOfTheDevice hidden;
  return on_cpu(self).item();
}

/// Everything else: by torch's operator for the CPU.
void by_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const WorkOfTheDevice hidden;
  const auto n = op.schema().arguments().size();
  bool ours = false, of_cpu = false;
  const auto look = [&](const Tensor& tensor) {
    if (!tensor.defined()) return;
    ours |= tensor.device() == device;
    of_cpu |= tensor.is_cpu() && tensor.dim() > 0;  // a single number may be there, as on a GPU
  };
  for (std::size_t k = stack->size() - n; k < stack->size(); ++k) {
    c10::IValue& value = (*stack)[k];
    if (value.isTensor()) look(value.toTensor());
    if (value.isTensorList()) {
      for (const Tensor& tensor : value.toTensorVector()) look(tensor);
    } else if (value.isList()) {
      // Indices, some of which may be none: torch's way to the CPU leaves them where they are.
      c10::List<c10::IValue> list = value.toList().copy();
      for (std::size_t i = 0; i < list.size(); ++i)
        if (const c10::IValue one = list.get(i); one.isTensor()) list.set(i, one.toTensor().cpu());
      value = list;
    }
  }
  TORCH_CHECK(!(ours && of_cpu), "Expected all tensors to be on the same device, found two in ",
              op.schema().operator_name());
  at::native::cpu_fallback(op, stack);
}

}  // namespace

void run_out_of_memory_after(int n_allocations) { allocations_left = n_allocations; }

void start_emulated_device() {
  static Memory memory;
  static Hooks hooks;
  static const Guard guard;
  c10::register_privateuse1_backend("emulated");
  c10::SetAllocator(type, &memory);
  at::RegisterPrivateUse1HooksInterface(&hooks);
  static const c10::impl::DeviceGuardImplRegistrar registrar(type, &guard);
  static torch::Library all(torch::Library::IMPL, "_", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  all.fallback(torch::CppFunction::makeFromBoxedFunction<&by_cpu>());
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR < 10
  // For operators without derivatives of their own. torch 2.13 brings it along.
  static torch::Library gradients(torch::Library::IMPL, "_", c10::DispatchKey::AutogradPrivateUse1, __FILE__, __LINE__);
  gradients.fallback(torch::CppFunction::makeFallthrough());
#endif
  static torch::Library aten(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  aten.impl("empty.memory_format", empty);
  aten.impl("empty_strided", empty_strided);
  aten.impl("as_strided", at::native::as_strided_tensorimpl);
  aten.impl("view", at::native::view);
  aten.impl("_reshape_alias", at::native::_reshape_alias);
  aten.impl("resize_", resize);
  aten.impl("_copy_from", copy_from);
  aten.impl("_copy_from_and_resize", copy_from_and_resize);
  aten.impl("_local_scalar_dense", item);
  // One operator, as on a GPU: without this torch makes a new tensor and copies it.
  for (const char* in_place : {"add_.Tensor", "addmm_", "baddbmm_"})
    aten.impl(in_place, torch::CppFunction::makeFromBoxedFunction<&by_cpu>());
}

}  // namespace mlip::testing

// Memory kept between steps: which tensors come from it, and that it stays within its bounds.
#include <ATen/ATen.h>

#include <optional>
#include <vector>

#include "model/kept_memory.h"
#include "unit/expect.h"

namespace {

using mlip::KeptMemory;
using mlip::testing::expect;

constexpr std::int64_t mebibyte = 1 << 20;

at::Tensor bytes(std::int64_t n) { return at::empty({n}, at::kByte); }

void a_block_is_used_again() {
  KeptMemory::release();
  const void* first = nullptr;
  {
    const KeptMemory::Step step(true);
    first = bytes(mebibyte).data_ptr();
  }
  expect(KeptMemory::bytes().kept == mebibyte, "what a step leaves is kept");
  const KeptMemory::Step step(true);
  expect(bytes(mebibyte - 1000).data_ptr() == first, "and used by a tensor that is a little smaller");
  expect(bytes(mebibyte / 4).data_ptr() != first, "but not by one of a quarter of its size");
}

void others_are_left_alone() {
  KeptMemory::release();
  bytes(mebibyte);
  const KeptMemory::Step on_a_device(false);
  bytes(mebibyte);
  {
    const KeptMemory::Step step(true);
    bytes(1000);
  }
  bytes(mebibyte);
  expect(KeptMemory::bytes().kept == 0, "tensors outside of steps, and small ones, are not kept");
}

void a_step_within_a_step_changes_nothing() {
  KeptMemory::release();
  const KeptMemory::Step outer(true);
  {
    const KeptMemory::Step inner(true);
  }
  bytes(mebibyte);
  expect(KeptMemory::bytes().kept == mebibyte, "the outer step goes on after an inner one");
}

void there_is_a_bound() {
  KeptMemory::release();
  const KeptMemory::Step step(true);
  for (std::int64_t size = 1; size <= 256; size *= 4) {  // none fits the block of another
    bytes(size * mebibyte);
    const auto now = KeptMemory::bytes();
    expect(static_cast<double>(now.in_use + now.kept) <= KeptMemory::most * static_cast<double>(now.most_in_use),
           "kept and in use stay below the bound");
  }
  expect(KeptMemory::bytes().kept >= 256 * mebibyte, "the largest is kept");
}

void unused_blocks_are_given_back() {
  KeptMemory::release();
  {
    const KeptMemory::Step step(true);
    bytes(mebibyte);
  }
  for (int k = 0; k < 8; ++k) const KeptMemory::Step step(true);
  expect(KeptMemory::bytes().kept == mebibyte, "eight steps without it keep a block");
  const KeptMemory::Step step(true);
  expect(KeptMemory::bytes().kept == 0, "the ninth gives it back");
}

void tensors_outlive_it() {
  KeptMemory::release();
  std::optional<at::Tensor> tensor;
  {
    const KeptMemory::Step step(true);
    tensor = at::ones({mebibyte}, at::kFloat);
  }
  KeptMemory::release();
  expect(tensor->sum().item<float>() == mebibyte, "a tensor outlives its step and the giving back");
  tensor.reset();
  expect(KeptMemory::bytes().in_use == 0, "and is counted to its end");
  KeptMemory::release();
  expect(KeptMemory::bytes().kept == 0, "nothing is kept at the end");
}

}  // namespace

int main() {
  if (!KeptMemory::keeps) return mlip::testing::report();
  a_block_is_used_again();
  others_are_left_alone();
  a_step_within_a_step_changes_nothing();
  there_is_a_bound();
  unused_blocks_are_given_back();
  tensors_outlive_it();
  return mlip::testing::report();
}

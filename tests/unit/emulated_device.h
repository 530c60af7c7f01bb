// A device of torch that is not the CPU, on machines without one: "emulated:0", whose memory is the CPU's and
// whose operators are torch's own for the CPU.
//
// As on a GPU, tensors of the CPU do not mix with its own, an operator without a part for it is an error, and
// autograd's backward pass runs on a thread of its own. What it cannot show: speed, streams, and a host that reads
// memory that only a GPU has.
#pragma once

#include <c10/core/Device.h>

namespace mlip::testing {

inline const at::Device emulated_device(c10::DeviceType::PrivateUse1, 0);

/// Once per process, before its first backward pass: torch counts devices then.
void start_emulated_device();

/// So many allocations from now one fails, as where the device's memory has run out. Negative: none.
void run_out_of_memory_after(int n_allocations);

}  // namespace mlip::testing

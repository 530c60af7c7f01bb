// CPU time of this process, and whether other programs took the cores that a run was to have.
#pragma once

#include <string>

namespace mlip {

/// Of all threads of this process since it started, in s.
double processor_seconds();

/// @param processor of all threads, in s, during a part of a run in which one thread at least always has work
/// @param wall      s that this part took
/// @return "had 0.4 of one core, since other programs run on the same cores" and what to do; empty if the threads had
///         their cores, and for parts of less than a second
std::string busy_cores(double processor, double wall);

}  // namespace mlip

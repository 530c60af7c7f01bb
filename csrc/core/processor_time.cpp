#include "core/processor_time.h"

#include <cstdio>
#include <ctime>

namespace mlip {

namespace {

constexpr double shortest_wall = 1.0;   // s: page faults and the disk make up much of less
constexpr double expected_share = 0.8;  // of one core

}  // namespace

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

std::string busy_cores(double processor, double wall) {
  if (wall < shortest_wall || processor >= expected_share * wall) return "";
  char share[16];
  std::snprintf(share, sizeof share, "%.2g", processor / wall);
  return std::string("had ") + share +
         " of one core, since other programs run on the same cores. Fewer threads and ranks may be faster then, and "
         "cores of their own are";
}

}  // namespace mlip

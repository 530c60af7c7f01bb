// What the C++ tests need of a test framework: three expectations, and the number of those that failed.
#pragma once

#include <cmath>
#include <cstdio>
#include <functional>
#include <string>

#include "core/error.h"

namespace mlip::testing {

inline int failures = 0;

inline void expect(bool condition, const std::string& what) {
  if (condition) return;
  std::printf("FAIL %s\n", what.c_str());
  ++failures;
}

inline void expect_near(double found, double expected, double tolerance, const std::string& what) {
  expect(std::fabs(found - expected) <= tolerance,
         what + ": found " + std::to_string(found) + ", expected " + std::to_string(expected));
}

inline void expect_error(const std::function<void()>& body, const std::string& part) {
  try {
    body();
  } catch (const Error& error) {
    expect(std::string(error.what()).find(part) != std::string::npos,
           "message '" + std::string(error.what()) + "' lacks '" + part + "'");
    return;
  }
  expect(false, "no error with '" + part + "'");
}

/// Says how many failed. @return that number, for the exit status
inline int report() {
  std::printf("%d failure(s)\n", failures);
  return failures;
}

}  // namespace mlip::testing

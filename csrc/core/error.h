// The one exception type that the core throws and every engine shell translates into its own.
#pragma once

#include <stdexcept>
#include <string>

namespace mlip {

/// A message for a user: what was found, what was expected, the line to type.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace mlip

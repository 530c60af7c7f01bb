// torch's exceptions, which carry a C++ backtrace or a TorchScript traceback, turned into ours.
#pragma once

#include <c10/util/Exception.h>

#include <exception>
#include <string>

#include "core/error.h"

namespace mlip {

/// The reason in a TorchScript traceback, which is its last line.
inline std::string reason_of(const std::string& traceback) {
  const auto end = traceback.find_last_not_of("\n ");
  if (end == std::string::npos) return traceback;
  const auto start = traceback.rfind('\n', end);
  return traceback.substr(start == std::string::npos ? 0 : start + 1,
                          end - (start == std::string::npos ? 0 : start + 1) + 1);
}

/// Runs `body` and returns what it returns.
/// @param what begins the message. @throws Error, also in the place of any other exception.
template <typename Body>
auto translate_errors(const std::string& what, Body&& body) {
  try {
    return body();
  } catch (const Error&) {
    throw;
  } catch (const c10::Error& failure) {
    throw Error(what + ": " + failure.what_without_backtrace());
  } catch (const std::exception& failure) {
    throw Error(what + ": " + reason_of(failure.what()));
  }
}

}  // namespace mlip

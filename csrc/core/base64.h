// Base64 (RFC 4648) with padding and no line breaks: bytes as text, in XML and JSON.
#pragma once

#include <string>

namespace mlip {

std::string to_base64(const std::string& bytes);
/// @throws Error for a character outside the alphabet or a wrong length.
std::string from_base64(const std::string& text);

}  // namespace mlip

#include "core/validation_record.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"

namespace mlip {
namespace {

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace

std::string Signature::describe() const {
  std::vector<std::string> releases;
  for (const auto& [package, release] : versions) releases.push_back(package + " " + release);
  return join(suites) + " in " + join(engines) + " (" + join(releases) + ")";
}

Signature parse_signature(const std::string& text, const std::string& source) {
  using nlohmann::json;
  try {
    const json document = json::parse(text);
    if (document.at("schema").get<std::string>() != "1.0" || document.at("verdict").get<std::string>() != "pass")
      throw Error(source + ": the signature is of another schema. Validate the file again: mlip validate");
    Signature signature;
    signature.content_sha256 = document.at("content_sha256").get<std::string>();
    signature.suites = document.at("suites").get<std::vector<std::string>>();
    signature.engines = document.at("engines").get<std::vector<std::string>>();
    signature.versions = document.at("versions").get<std::map<std::string, std::string>>();
    return signature;
  } catch (const json::exception& error) {
    throw Error(source + ": the signature cannot be read (" + error.what() +
                "). Validate the file again: mlip validate");
  }
}

std::string unvalidated(const std::optional<Signature>& signature, const std::string& content_sha256,
                        const Surroundings& here) {
  if (!signature) return "nobody has validated it";
  if (signature->content_sha256 != content_sha256) return "it was changed after it was validated";
  const auto& engines = signature->engines;
  if (std::find(engines.begin(), engines.end(), here.engine) == engines.end())
    return "it was validated in " + join(engines) + ", not in " + here.engine;
  for (const auto& [package, release] :
       {std::pair{std::string("torch"), here.torch_release}, std::pair{here.engine, here.engine_release}}) {
    const auto expected = signature->versions.find(package);
    if (expected != signature->versions.end() && expected->second != release)
      return "it was validated with " + package + " " + expected->second + ", this is " + release;
  }
  return "";
}

}  // namespace mlip

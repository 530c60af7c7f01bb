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

std::string ValidationRecord::describe() const {
  std::vector<std::string> releases;
  for (const auto& [package, release] : versions) releases.push_back(package + " " + release);
  return join(suites) + " in " + join(engines) + " (" + join(releases) + ")";
}

ValidationRecord parse_validation_record(const std::string& text, const std::string& source) {
  using nlohmann::json;
  try {
    const json document = json::parse(text);
    const auto verdict = document.at("verdict").get<std::string>();
    if (document.at("schema").get<std::string>() != "1.0" || (verdict != "pass" && verdict != "fail"))
      throw Error(source + ": the validation record is of another schema. Validate the file again: mlip validate");
    ValidationRecord record;
    record.passed = verdict == "pass";
    record.content_sha256 = document.at("content_sha256").get<std::string>();
    record.suites = document.at("suites").get<std::vector<std::string>>();
    record.engines = document.at("engines").get<std::vector<std::string>>();
    record.versions = document.at("versions").get<std::map<std::string, std::string>>();
    record.failures = document.at("failures").get<std::vector<std::string>>();
    return record;
  } catch (const json::exception& error) {
    throw Error(source + ": the validation record cannot be read (" + error.what() +
                "). Validate the file again: mlip validate");
  }
}

std::string unvalidated(const std::optional<ValidationRecord>& record, const std::string& content_sha256,
                        const Surroundings& here) {
  if (!record) return "it has not been validated";
  if (record->content_sha256 != content_sha256) return "it was changed after it was validated";
  if (!record->passed) {
    const auto& failures = record->failures;
    return "it failed its validation (" + std::to_string(failures.size()) + " check(s)" +
           (failures.empty() ? "" : ", the first: " + failures.front()) + ")";
  }
  const auto& engines = record->engines;
  if (std::find(engines.begin(), engines.end(), here.engine) == engines.end())
    return "it was validated in " + join(engines) + ", not in " + here.engine;
  for (const auto& [package, release] :
       {std::pair{std::string("torch"), here.torch_release}, std::pair{here.engine, here.engine_release}}) {
    const auto expected = record->versions.find(package);
    if (expected != record->versions.end() && expected->second != release)
      return "it was validated with " + package + " " + expected->second + ", this is " + release;
  }
  return "";
}

}  // namespace mlip

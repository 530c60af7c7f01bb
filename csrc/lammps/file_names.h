// Names of the files that a style writes.
#pragma once

#include <filesystem>
#include <string>

#include "universe.h"

namespace mlip {

/// With -partition each partition has a file of its own: "frames.0.extxyz", "frames.1.extxyz", ...
inline std::string of_partition(const std::string& name, const LAMMPS_NS::Universe& universe) {
  if (universe.nworlds == 1) return name;
  const std::filesystem::path path(name);
  const std::string own = path.stem().string() + "." + std::to_string(universe.iworld) + path.extension().string();
  return (path.parent_path() / own).string();
}

}  // namespace mlip

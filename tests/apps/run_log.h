#pragma once
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace agon::testing {

/// The lines of a run's log.jsonl.
inline std::vector<nlohmann::json> log_of(const std::filesystem::path& run) {
  std::ifstream in(run / "log.jsonl");
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

}  // namespace agon::testing

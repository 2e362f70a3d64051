#include "apps/restarts.h"

#include <algorithm>
#include <fstream>

#include "apps/config_file.h"
#include "core/error.h"

namespace agon {

namespace {

constexpr int kTriesInVain = 2;

bool is_training(const std::vector<std::string>& words) { return !words.empty() && words[0] == "train"; }

}  // namespace

bool Restarts::again(const std::string& checkpoint, std::string& why) {
  in_vain_ = checkpoint == checkpoint_ ? in_vain_ + 1 : 0;
  checkpoint_ = checkpoint;
  if (made_ == most_) {
    why = most_ ? text("failed after ", made_, " of ", most_, " restarts") : "";
    return false;
  }
  const std::string last = checkpoint.empty() ? "there is no checkpoint" : "the last checkpoint is still " + checkpoint;
  if (in_vain_ >= kTriesInVain) {
    why = text("not restarted: ", last, " after ", kTriesInVain, " tries");
    return false;
  }
  ++made_;
  why = text("restart ", made_, " of ", most_, checkpoint.empty() ? ", from the beginning" : ", from " + checkpoint);
  return true;
}

std::vector<std::string> continued(std::vector<std::string> words) {
  if (is_training(words) && std::ranges::find(words, "--resume") == words.end()) words.emplace_back("--resume");
  return words;
}

std::optional<Config> config_of(const std::vector<std::string>& words) {
  if (!is_training(words)) return {};
  std::string config;
  std::vector<std::string> overrides;
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "--init-from")
      ++i;  // has a value
    else if (words[i].starts_with('-'))
      continue;
    else if (config.empty())
      config = words[i];
    else
      overrides.push_back(words[i]);
  }
  if (config.empty()) return {};
  try {
    return load_config(config, overrides);
  } catch (const Error&) { return {}; }
}

std::string last_checkpoint(const std::string& run) {
  std::string name;
  if (!run.empty()) std::getline(std::ifstream(run + "/latest") >> std::ws, name);
  return name;
}

}  // namespace agon

#include "apps/training_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

#include "apps/config_file.h"
#include "apps/config_saved.h"
#include "apps/nearest.h"
#include "apps/score_options.h"
#include "core/copy.h"
#include "core/parallel.h"
#include "moe/thresholds.h"

namespace agon {

std::string TrainingState::json() const {
  nlohmann::json j;
  j["step"] = step;
  j["best_val_loss"] = best_val_loss;
  j["fingerprint"] = fmt::format("{:016x}", fingerprint);
  j["tokenizer"] = tokenizer;
  auto& saved =
      j["schedule"] = {{"steps", schedule.steps}, {"lost", schedule.lost}, {"layers", nlohmann::json::object()}};
  for (const auto& [index, layer] : schedule.layers)
    saved["layers"][std::to_string(index)] = {{"warm_up", layer.warm_up}, {"events", layer.events}};
  return j.dump();
}

TrainingState TrainingState::from_json(const std::string& json, const std::string& source) {
  TrainingState s;
  try {
    const auto j = nlohmann::json::parse(json);
    j.at("step").get_to(s.step);
    j.at("best_val_loss").get_to(s.best_val_loss);
    s.fingerprint = std::stoull(j.at("fingerprint").get<std::string>(), nullptr, 16);
    j.at("tokenizer").get_to(s.tokenizer);
    if (!j.contains("schedule")) return s;  // written before experts could compete
    const auto& schedule = j.at("schedule");
    schedule.at("steps").get_to(s.schedule.steps);
    schedule.at("lost").get_to(s.schedule.lost);
    for (const auto& [index, layer] : schedule.at("layers").items())
      s.schedule.layers[std::stoi(index)] = {layer.at("warm_up"), layer.at("events")};
  } catch (const std::exception& e) {
    throw UserError(text(source, ": the training state cannot be read: ", e.what()));
  }
  return s;
}

namespace {

TensorPart part_of(const LanguageModel& model, const std::string& path, const Parameter& p) {
  if (p.group == Group::shared) return {path, p.master};
  return {path, p.master, p.first, p.master.shape().with(0, model.config().moe.layer.experts)};
}

}  // namespace

std::vector<TensorPart> model_tensors(LanguageModel& model) {
  std::vector<TensorPart> all;
  each_parameter(model, [&](const std::string& path, Parameter& p) { all.push_back(part_of(model, path, p)); });
  each_state(model, [&](const std::string& path, Tensor& t) { all.push_back({path, t}); });
  return all;
}

std::vector<TensorPart> optimizer_tensors(Optimizer& optimizer) {
  std::vector<TensorPart> all;
  optimizer.each_moment([&](const Optimizer::Moment& m) { all.push_back({m.name, m.tensor, m.first, m.whole}); });
  return all;
}

namespace {

/// Paths of the layers' routers that route by another strategy than in `saved`.
std::vector<std::string> other_routers(const LanguageModel& model, const Config& saved) {
  std::vector<std::string> paths;
  for (int64_t i = 0; i < model.config().model.layers; ++i) {
    const bool both = model.config().moe.has_experts(i) && saved.moe.has_experts(i);
    if (both && model.config().moe.router_of(i).strategy != saved.moe.router_of(i).strategy)
      paths.push_back(text("blocks.", i, ".feed_forward.router."));
  }
  return paths;
}

[[noreturn]] void missing(const Checkpoint& checkpoint, const TensorPart& wanted) {
  std::vector<std::string> present;
  for (const TensorEntry& e : checkpoint.model().tensors()) present.push_back(e.name);
  const std::string near = nearest(wanted.name, present);
  throw UserError(text(checkpoint.path(), ": has no tensor ", wanted.name, ' ', *resolved(wanted).whole,
                       ", which this model needs", near.empty() ? "" : "; the nearest name there is " + near));
}

void forget_thresholds(LanguageModel& model, const Config& saved) {
  for (size_t i = 0; i < model.blocks().size(); ++i) {
    const auto& layer = model.blocks()[i].experts;
    Thresholds* const thresholds = layer ? layer->router().thresholds() : nullptr;
    if (!thresholds || !saved.moe.has_experts(int64_t(i))) continue;
    const RouterChoice &then = saved.moe.router_of(int64_t(i)), &now = model.config().moe.router_of(int64_t(i));
    if (!threshold_differences(then, now).empty()) fill(thresholds->value, std::numeric_limits<double>::quiet_NaN());
  }
}

}  // namespace

void load_model(const Checkpoint& checkpoint, LanguageModel& model, const Config* saved) {
  const std::vector<std::string> others = saved ? other_routers(model, *saved) : std::vector<std::string>{};
  const auto routes_anew = [&](const std::string& name) {
    return std::ranges::any_of(others, [&](const std::string& path) { return name.starts_with(path); });
  };
  std::map<std::string, bool> known;
  const auto load = [&](const TensorPart& part) {
    known[part.name] = true;
    if (!checkpoint.model().find(part.name)) missing(checkpoint, part);
    checkpoint.model().load_into(part, true);
  };
  each_parameter(model, [&](const std::string& name, Parameter& p) { load(part_of(model, name, p)); });
  each_state(model, [&](const std::string& name, Tensor& t) {
    if (!routes_anew(name)) load({name, t});
  });
  for (const TensorEntry& e : checkpoint.model().tensors()) {
    // What has moments was trained: that is no state.
    const bool state = !checkpoint.optimizer().find("first." + e.name);
    require(known.contains(e.name) || (state && routes_anew(e.name)), checkpoint.path(), ": tensor ", e.name, " ",
            e.shape, " has no place in this model");
  }
  each_parameter(model, [](const std::string&, Parameter& p) { p.refresh(); });
  if (saved) forget_thresholds(model, *saved);
}

LoadedModel open_model(const std::string& path, const std::vector<std::string>& overrides, Communicator& comm,
                       bool here) {
  std::vector<std::string> skipped;
  const Checkpoint checkpoint = open_checkpoint(path, &skipped);
  for (const std::string& line : skipped) std::fprintf(stderr, "agon: %s\n", line.c_str());
  LoadedModel loaded;
  loaded.path = checkpoint.path();
  const std::string source = checkpoint.path() + " (its configuration)";
  loaded.saved = saved_config(checkpoint.config(), source);
  loaded.config = parse_saved_config(checkpoint.config(), source, overrides);
  const Device device = here ? Device{} : loaded.config.use_device();
  set_threads(int(loaded.config.threads));
  loaded.state = TrainingState::from_json(checkpoint.state(), checkpoint.path());
  loaded.tokenizer = tokenizer_from_json(loaded.state.tokenizer, checkpoint.path());
  loaded.model = std::make_unique<LanguageModel>(loaded.config, loaded.tokenizer->vocabulary(), comm);
  load_model(checkpoint, *loaded.model, &loaded.saved);
  move_to(*loaded.model, device);
  return loaded;
}

}  // namespace agon

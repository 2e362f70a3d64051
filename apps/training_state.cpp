#include "apps/training_state.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "apps/config_file.h"
#include "core/parallel.h"

namespace agon {

std::string TrainingState::json() const {
  nlohmann::json j;
  j["step"] = step;
  j["best_val_loss"] = best_val_loss;
  j["fingerprint"] = fmt::format("{:016x}", fingerprint);
  j["tokenizer"] = tokenizer;
  auto& saved = j["schedule"] = {{"steps", schedule.steps}, {"lost", schedule.lost}, {"layers", nlohmann::json::object()}};
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

std::vector<NamedTensor> model_tensors(LanguageModel& model) {
  std::vector<NamedTensor> all;
  each_parameter(model, [&](const std::string& path, Parameter& p) { all.push_back({path, p.master}); });
  each_state(model, [&](const std::string& path, Tensor& t) { all.push_back({path, t}); });
  return all;
}

std::vector<NamedTensor> optimizer_tensors(Optimizer& optimizer) {
  std::vector<NamedTensor> all;
  optimizer.each_moment([&](const std::string& name, Tensor& t) { all.push_back({name, t}); });
  return all;
}

void load_model(const Checkpoint& checkpoint, LanguageModel& model) {
  const auto wanted = model_tensors(model);
  std::map<std::string, bool> known;
  for (const NamedTensor& t : wanted) {
    known[t.name] = true;
    checkpoint.model().load_into(t.name, t.tensor, true);
  }
  for (const TensorEntry& e : checkpoint.model().tensors())
    require(known.contains(e.name), checkpoint.path(), ": tensor ", e.name, " ", e.shape,
            " has no place in this model");
  each_parameter(model, [](const std::string&, Parameter& p) { p.refresh(); });
}

LoadedModel open_model(const std::string& path, const std::vector<std::string>& overrides, Communicator& comm) {
  std::vector<std::string> skipped;
  const Checkpoint checkpoint = open_checkpoint(path, &skipped);
  for (const std::string& line : skipped) std::fprintf(stderr, "agon: %s\n", line.c_str());
  LoadedModel loaded;
  loaded.path = checkpoint.path();
  loaded.config = parse_config(checkpoint.config(), checkpoint.path() + " (its configuration)", overrides);
  set_threads(int(loaded.config.threads));
  loaded.state = TrainingState::from_json(checkpoint.state(), checkpoint.path());
  loaded.tokenizer = tokenizer_from_json(loaded.state.tokenizer, checkpoint.path());
  loaded.model = std::make_unique<LanguageModel>(loaded.config, loaded.tokenizer->vocabulary(), comm);
  load_model(checkpoint, *loaded.model);
  return loaded;
}

}  // namespace agon

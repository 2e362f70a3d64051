#include "apps/causal.h"

#include <algorithm>
#include <set>

#include "apps/nearest.h"
#include "apps/option.h"
#include "apps/score_options.h"
#include "core/error.h"
#include "moe/thresholds.h"

namespace agon {

namespace {

Thresholds* thresholds_of(Block& block) { return block.experts ? block.experts->router().thresholds() : nullptr; }

std::string described(const Calibration& c) { return text(c.source, ", ", c.tokens, " tokens"); }

/// The calibration beside the manifest; `why` says why there is none.
std::optional<Calibration> calibration_beside(LoadedModel& loaded, std::string& why) {
  const std::string path = calibration_path(loaded.path);
  why = "there is no " + path;
  if (!exists(path)) return {};
  try {
    Calibration c = Calibration::read(path);
    why = misfit(c, *loaded.model, weights_of(loaded.path));
    if (why.empty()) return c;
    why = path + " was " + why;
  } catch (const UserError& e) { why = e.what(); }
  return {};
}

/// The value of a strategy's option; `otherwise` where it has none of that name.
template <class T>
T option(const RouterChoice& choice, const std::string& name, T otherwise) {
  for (const Option& o : options_of(*choice.options))
    if (o.name == name)
      if (T* const* field = std::get_if<T*>(&o.field)) return **field;
  return otherwise;
}

/// "layer 1 (unified)", "layers 0, 2 to 5 (unified), 6 (expert_choice)": what is said of several layers stands once.
std::string named(const Layers& layers, const char* open = " (", const char* close = ")") {
  std::string all;
  for (auto at = layers.begin(); at != layers.end();) {
    const auto first = at;
    auto last = at;
    for (++at; at != layers.end() && at->first == last->first + 1 && at->second == first->second; ++at) last = at;
    const bool more = at != layers.end() && at->second == first->second;
    all += text(all.empty() ? "" : ", ", first->first, last == first ? "" : text(" to ", last->first),
                more ? "" : open + first->second + close);
  }
  return (layers.size() == 1 ? "layer " : "layers ") + all;
}

void refuse_noncausal(const LoadedModel& loaded, const std::string& remedy) {
  const Layers layers = noncausal_layers(loaded.config);
  require(layers.empty(), loaded.path, ": the scores of ", named(layers),
          " depend on later tokens, so no threshold makes this model causal", remedy);
}

/// What keeps what was learned from being used, where that is another configuration.
std::string not_learned(const LoadedModel& loaded, const Layers& layers) {
  Layers others;
  for (const auto& [index, strategy] : layers) {
    const std::string other =
        threshold_differences(loaded.saved.moe.router_of(index), loaded.config.moe.router_of(index));
    if (!other.empty()) others[index] = other;
  }
  if (others.empty()) return {};
  return "; none were learned for these options (checkpoint -> now: " + named(others, ": ", "") + ")";
}

}  // namespace

Layers thresholded_layers(LanguageModel& model) {
  Layers all;
  for (size_t i = 0; i < model.blocks().size(); ++i)
    if (thresholds_of(model.blocks()[i])) all[int64_t(i)] = model.config().moe.router_of(int64_t(i)).strategy;
  return all;
}

Layers noncausal_layers(const Config& config) {
  Layers all;
  for (int64_t i = 0; i < config.model.layers; ++i)
    if (config.moe.has_experts(i) && !config.moe.router_of(i).options->causal())
      all[i] = config.moe.router_of(i).strategy;
  return all;
}

Calibration calibrate_with(const LoadedModel& loaded, const std::string& where, Step& arena) {
  const Config& c = loaded.config;
  refuse_noncausal(loaded, "");
  const Tokens tokens = load_tokens(where, c.data, *loaded.tokenizer);
  const EvaluationData data(tokens, *loaded.tokenizer, c.data, c.model.sequence);
  Calibration made = calibrate(*loaded.model, data, evaluation_batch(c), arena);
  made.source = tokens.source;
  made.weights = weights_of(loaded.path);
  return made;
}

ThresholdSources settle_thresholds(LoadedModel& loaded, const std::optional<Calibration>& made,
                                   const std::vector<std::string>& overrides, bool evaluating) {
  refuse_noncausal(loaded, evaluating ? "; evaluate it with --noncausal" : "");
  ThresholdSources sources;
  Layers missing;
  std::optional<Calibration> beside;
  std::string unfit;
  for (const auto& [index, strategy] : thresholded_layers(*loaded.model)) {
    Thresholds& thresholds = *thresholds_of(loaded.model->blocks()[size_t(index)]);
    if (made) {
      set_thresholds(thresholds, made->layers.at(index), made->tokens);
      sources[index] = "calibrated in this run with " + described(*made);
    } else if (thresholds.known()) {
      sources[index] = "learned";
    } else {
      if (!beside && unfit.empty()) beside = calibration_beside(loaded, unfit);
      if (beside) {
        set_thresholds(thresholds, beside->layers.at(index), beside->tokens);
        sources[index] = calibration_path(loaded.path) + " of " + described(*beside);
      } else {
        missing[index] = strategy;
      }
    }
  }
  if (missing.empty()) return sources;
  std::string remedy = "; make them with: agon calibrate " + loaded.path + " TEXT";
  for (const std::string& given : overrides) remedy += " '" + given + "'";
  if (evaluating)
    remedy += ", or for one evaluation with --calibrate TEXT, or let tokens see later ones with --noncausal";
  throw UserError(loaded.path + ": " + named(missing) + (missing.size() == 1 ? " chooses" : " choose") +
                  " between tokens, without thresholds to do so causally" + not_learned(loaded, missing) +
                  (unfit.empty() ? "" : "; ") + unfit + remedy);
}

std::string thresholds_in_words(const ThresholdSources& sources) {
  std::set<std::string> different;
  for (const auto& [index, source] : sources) different.insert(source);
  std::string lines;
  for (const auto& [index, source] : sources) {
    if (different.size() == 1) return "thresholds     " + source + '\n';
    std::string name = text("thresholds ", index);
    name.resize(std::max<size_t>(15, name.size() + 1), ' ');
    lines += name + source + '\n';
  }
  return lines;
}

std::string scope_in_words(LanguageModel& model, Mode mode, int64_t batch) {
  const std::string context = text(", context ", model.config().model.sequence);
  if (mode == Mode::eval) return "causal" + context;
  std::set<std::string> scopes;
  Layers layers = thresholded_layers(model);
  layers.merge(noncausal_layers(model.config()));
  for (const auto& [index, strategy] : layers) {
    const RouterChoice& choice = model.config().moe.router_of(index);
    const auto scope = option<std::string>(choice, "scope", "batch");
    const auto group = option<int64_t>(choice, "group", 0);
    scopes.insert(scope == "sequence" ? scope : text(scope, " of ", group ? group : batch, " sequences"));
  }
  const std::vector<std::string> all(scopes.begin(), scopes.end());
  return "noncausal, " + (all.empty() ? "no layer chooses between tokens" : "scope " + joined(all)) + context;
}

double budget_of(const Config& config) {
  double sum = 0;
  int64_t layers = 0;
  for (int64_t i = 0; i < config.model.layers; ++i)
    if (config.moe.has_experts(i)) sum += config.moe.router_of(i).options->experts_per_token(), ++layers;
  return layers ? sum / double(layers) : 0;
}

}  // namespace agon

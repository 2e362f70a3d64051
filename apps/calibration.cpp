#include "apps/calibration.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/manifest.h"
#include "apps/safetensors.h"
#include "apps/score_options.h"
#include "apps/trainer.h"
#include "apps/utf8.h"
#include "core/copy.h"
#include "core/profile.h"
#include "moe/thresholds.h"

namespace agon {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kKey = "agon_calibration";
constexpr int kVersion = 1;

std::string tensor_name(int64_t layer, const char* what) { return text("layer.", layer, '.', what); }

void append(std::vector<NamedTensor>& tensors, int64_t layer, const std::vector<ScoreHistogram>& columns) {
  std::vector<int32_t> bin, offsets{0};
  std::vector<double> count;
  for (const ScoreHistogram& h : columns) {
    bin.insert(bin.end(), h.bins().begin(), h.bins().end());
    count.insert(count.end(), h.counts().begin(), h.counts().end());
    offsets.push_back(int32_t(bin.size()));
  }
  tensors.push_back({tensor_name(layer, "bin"), tensor_of(bin)});
  tensors.push_back({tensor_name(layer, "count"), tensor_of(count)});
  tensors.push_back({tensor_name(layer, "offsets"), tensor_of(offsets)});
}

std::vector<ScoreHistogram> columns_of(const SafetensorsFile& file, int64_t layer) {
  const auto of_type = [&](const char* what, DType dtype) {
    const TensorEntry& entry = file.at(tensor_name(layer, what));
    require(entry.dtype == dtype && entry.shape.rank() == 1, "tensor ", in_quotes(entry.name), " is ", entry.dtype, ' ',
            entry.shape, ", expected one row of ", dtype);
    return file.load(entry.name);
  };
  const Tensor bin = of_type("bin", DType::i32), count = of_type("count", DType::f64),
               offsets = of_type("offsets", DType::i32);
  const auto at = offsets.data<const int32_t>();
  require(!at.empty() && at.front() == 0 && std::ranges::is_sorted(at) && at.back() == bin.size() &&
              bin.size() == count.size(),
          "the offsets of layer ", layer, " do not fit its bins");
  std::vector<ScoreHistogram> columns;
  for (size_t i = 0; i + 1 < at.size(); ++i) {
    const auto part = [&]<class T>(std::span<const T> of) {
      return std::vector<T>(of.begin() + at[i], of.begin() + at[i + 1]);
    };
    columns.emplace_back(part(bin.data<const int32_t>()), part(count.data<const double>()));
  }
  return columns;
}

/// Bins per column of candidates [T, E]: one column for each expert, or one for all.
void add(std::vector<ScoreHistogram>& columns, const Tensor& candidates) {
  const auto E = size_t(candidates.shape(1));
  visit_accumulator(candidates.dtype(), [&]<class T>() {
    const auto score = candidates.data<const T>();
    for (size_t i = 0; i < score.size(); ++i) columns[columns.size() == 1 ? 0 : i % E].add(float(score[i]));
  });
}

Calibration parse(const SafetensorsFile& file, const std::string& metadata) {
  const Json json = Json::parse(metadata);
  const int64_t version = json.at("version").get<int64_t>();
  require(version == kVersion, "found version ", version, ", expected ", kVersion);
  Calibration c;
  json.at("text").get_to(c.source);
  json.at("tokens").get_to(c.tokens);
  json.at("weights").get_to(c.weights);
  require(c.tokens > 0, "found ", c.tokens, " tokens, expected some");
  for (const auto& [index, entry] : json.at("layers").items()) {
    const int64_t i = std::stoll(index);
    LayerCalibration& layer = c.layers[i];
    entry.at("strategy").get_to(layer.strategy);
    entry.at("options").get_to(layer.options);
    if (file.find(tensor_name(i, "offsets"))) layer.scores = columns_of(file, i);
    for (const ScoreHistogram& h : layer.scores)
      require(h.total() >= double(c.tokens), "layer ", i, " has ", h.total(), " scores of ", c.tokens, " tokens");
  }
  return c;
}

}  // namespace

std::string calibration_path(const std::string& checkpoint) { return checkpoint + "/calibration.safetensors"; }

std::string weights_of(const std::string& checkpoint, FileSystem& files) {
  const Manifest manifest = read_manifest(checkpoint, files);
  if (manifest.tensors.empty()) return hexadecimal(manifest.files.at("model.safetensors").checksum);
  Checksum of_shards;
  for (const auto& [name, digest] : manifest.files)
    if (name.starts_with("model-")) of_shards.update(&digest.checksum, sizeof digest.checksum);
  return hexadecimal(of_shards.value());
}

void Calibration::write(const std::string& path, FileSystem& files) const {
  Json json;
  json["version"] = kVersion;
  json["text"] = printable(source);
  json["tokens"] = tokens;
  json["weights"] = weights;
  json["layers"] = Json::object();
  std::vector<NamedTensor> tensors;
  for (const auto& [index, layer] : layers) {
    json["layers"][std::to_string(index)] = {{"strategy", layer.strategy}, {"options", layer.options}};
    if (!layer.scores.empty()) append(tensors, index, layer.scores);
  }
  write_safetensors(path, tensors, {{kKey, json.dump()}}, files);
}

Calibration Calibration::read(const std::string& path, FileSystem& files) {
  const SafetensorsFile file = SafetensorsFile::open(path, files);
  const auto found = file.metadata().find(kKey);
  require(found != file.metadata().end(), path, ": not a calibration: its metadata has no ", kKey);
  const auto refuse = [&](const std::exception& e) -> UserError {
    return UserError(text(path, ": not a calibration that can be used: ", e.what()));
  };
  try {
    return parse(file, found->second);
  } catch (const UserError& e) { throw refuse(e); } catch (const Error&) {
    throw;
  } catch (const std::exception& e) { throw refuse(e); }
}

Calibration calibrate(LanguageModel& model, const EvaluationData& data, int64_t batch, Step& arena) {
  const Part part("calibration");
  Calibration c;
  bool any = false;
  for (size_t i = 0; i < model.blocks().size(); ++i) {
    if (!model.blocks()[i].experts) continue;
    const RouterChoice& choice = model.config().moe.router_of(int64_t(i));
    LayerCalibration& layer = c.layers[int64_t(i)];
    layer.strategy = choice.strategy;
    layer.options = score_options(choice);
    if (const Thresholds* t = model.blocks()[i].experts->router().thresholds())
      layer.scores.resize(size_t(t->value.size())), any = true;
  }
  require(any,
          "nothing to calibrate: no layer of this model chooses between tokens. Name a strategy that does, as "
          "moe.router.strategy=unified");
  RouterContext context;
  context.mode = Mode::eval_noncausal;
  context.seed = uint64_t(model.config().seed);
  for (int64_t first = 0; first < data.windows(); first += batch)
    arena([&] {
      const Batch b = data.batch(first, batch);
      const Passed passed = model(sequences_of(b, model.device()), context);
      c.tokens += b.token.size();
      for (auto& [index, layer] : c.layers) {
        if (layer.scores.empty()) continue;
        const Tensor candidates = on_host(passed.statistics[size_t(index)].candidates);
        check(bool(candidates), "layer ", index, " has thresholds and shows no scores to take them from");
        add(layer.scores, candidates);
      }
    });
  require(c.tokens > 0, "nothing to calibrate with: the text has no token to predict");
  return c;
}

std::string misfit(const Calibration& c, LanguageModel& model, const std::string& weights) {
  if (c.weights != weights)
    return text("made for other weights than these (checksum ", c.weights, ", found ", weights, ")");
  int64_t layers = 0;
  for (size_t i = 0; i < model.blocks().size(); ++i) {
    if (!model.blocks()[i].experts) continue;
    ++layers;
    const auto found = c.layers.find(int64_t(i));
    if (found == c.layers.end()) return text("made for other layers: it has none of index ", i);
    const RouterChoice& choice = model.config().moe.router_of(int64_t(i));
    const std::string other =
        score_differences(found->second.strategy, found->second.options, choice.strategy, score_options(choice));
    if (!other.empty()) return text("made for other options (then -> now) of layer ", i, ": ", other);
    const Thresholds* t = model.blocks()[i].experts->router().thresholds();
    const size_t wanted = t ? size_t(t->value.size()) : 0, there = found->second.scores.size();
    if (there != wanted) return text("layer ", i, " has ", there, " histograms in it, expected ", wanted);
  }
  if (int64_t(c.layers.size()) != layers)
    return text("made for other layers: it has ", c.layers.size(), " with experts, the model ", layers);
  return {};
}

std::vector<double> threshold_for(const LayerCalibration& layer, int64_t tokens, double k) {
  std::vector<double> all;
  for (const ScoreHistogram& h : layer.scores)
    all.push_back(h.reached_by(k / double(layer.scores.size()) * double(tokens)));
  return all;
}

void set_thresholds(Thresholds& thresholds, const LayerCalibration& layer, int64_t tokens) {
  const std::vector<double> value = threshold_for(layer, tokens, thresholds.experts_per_token);
  check(int64_t(value.size()) == thresholds.value.size(), "a calibration of ", value.size(), " histograms for ",
        thresholds.value.size(), " thresholds");
  copy(thresholds.value, tensor_of(value));
}

}  // namespace agon

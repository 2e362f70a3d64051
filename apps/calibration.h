#pragma once
#include <map>
#include <string>
#include <vector>

#include "apps/data.h"
#include "apps/file_system.h"
#include "apps/histogram.h"
#include "apps/model.h"
#include "apps/step.h"

namespace agon {

/// A layer's scores over a text.
struct LayerCalibration {
  std::string strategy;
  std::map<std::string, std::string> options;  // score_options.h
  std::vector<ScoreHistogram> scores;          // one per expert, or one for all; none for strategies without thresholds
};

/// What lets a model whose layers choose between tokens run causally with any budget: made by one pass over a text that
/// changes no weight. ROUTING.md section 6.
struct Calibration {
  std::string source;                          // the text it was made with
  int64_t tokens = 0;                          // of it
  std::string weights;                         // checksum of the checkpoint's tensors; see weights_of
  std::map<int64_t, LayerCalibration> layers;  // all layers with experts, by index of the block

  /// As a safetensors file at `path`, atomically: layer.N.bin i32, layer.N.count f64 and layer.N.offsets i32
  /// [columns+1] (where each expert's bins begin), the rest as JSON in its metadata.
  void write(const std::string& path, FileSystem& files = FileSystem::real()) const;
  /// UserError naming the file where it is missing, damaged or of another format.
  static Calibration read(const std::string& path, FileSystem& files = FileSystem::real());
};

/// CKPT/calibration.safetensors
std::string calibration_path(const std::string& checkpoint);
/// 16 digits that tell a checkpoint's tensors from any other's, from its manifest.
std::string weights_of(const std::string& checkpoint, FileSystem& files = FileSystem::real());

/// The whole text through the model, `batch` windows at a time, layers choosing by scope as in training. Its `source`
/// and `weights` are for the caller to name. UserError when no layer has thresholds.
Calibration calibrate(LanguageModel& model, const EvaluationData& data, int64_t batch, Step& arena);

/// In which words a calibration does not fit a model of these weights; "" when it does.
std::string misfit(const Calibration& calibration, LanguageModel& model, const std::string& weights);

/// The score that `k` experts per token reach on average, per expert or for all of them: as many numbers as the layer
/// has histograms.
std::vector<double> threshold_for(const LayerCalibration& layer, int64_t tokens, double k);

/// Sets a layer's thresholds for its budget.
void set_thresholds(Thresholds& thresholds, const LayerCalibration& layer, int64_t tokens);

}  // namespace agon

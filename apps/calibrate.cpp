#include <cstdio>

#include "apps/causal.h"
#include "apps/verbs.h"

namespace agon {

int calibrate_thresholds(const CalibrateArguments& arguments) {
  const auto comm = make_self_communicator();
  const LoadedModel loaded = open_model(arguments.checkpoint, arguments.overrides, *comm);
  Step arena(loaded.model->device());
  const Calibration made = calibrate_with(loaded, arguments.text, arena);
  const std::string path = calibration_path(loaded.path);
  made.write(path);
  std::printf("checkpoint     %s\ntext           %s\ntokens         %lld\ncalibration    %s\n", loaded.path.c_str(),
              made.source.c_str(), static_cast<long long>(made.tokens), path.c_str());
  for (const auto& [index, strategy] : thresholded_layers(*loaded.model)) {
    const double k = loaded.config.moe.router_of(index).options->experts_per_token();
    std::string values;
    for (const double value : threshold_for(made.layers.at(index), made.tokens, k)) values += text(' ', value);
    std::printf("threshold %-4lld%s, for k = %g (%s)\n", static_cast<long long>(index), values.c_str(), k,
                strategy.c_str());
  }
  return 0;
}

}  // namespace agon

#include <cstdio>
#include <filesystem>

#include "apps/account.h"
#include "apps/config_file.h"
#include "apps/corpus.h"
#include "apps/report_tables.h"
#include "apps/training_state.h"
#include "apps/verbs.h"

namespace agon {

namespace {

void print_model(LanguageModel& model) {
  const Account a = account(model);
  std::fputs(describe(model.config(), a, model.vocabulary()).c_str(), stdout);
  std::printf("       parameters %lld, active %.0f, forward FLOPs per token %.0f, training %.0f\n",
              static_cast<long long>(a.parameters), a.active, a.forward_flops, a.training_flops());
  std::printf(
      "       memory: parameters %lld bytes, gradients %lld bytes, optimizer %lld bytes (activations: train "
      "--dry-run)\n",
      static_cast<long long>(a.value_bytes), static_cast<long long>(a.gradient_bytes),
      static_cast<long long>(2 * a.gradient_bytes));
  each_parameter(model, [](const std::string& path, Parameter& p) {
    const std::string shape = text(p.value.shape(), ' ', p.value.dtype());
    std::printf("  %-52s %s\n", path.c_str(), shape.c_str());
  });
  each_state(model, [](const std::string& path, Tensor& t) {
    const std::string shape = text(t.shape(), ' ', t.dtype(), " (state)");
    std::printf("  %-52s %s\n", path.c_str(), shape.c_str());
  });
}

}  // namespace

int info(const std::string& what, const std::vector<std::string>& overrides) {
  const auto comm = make_self_communicator();
  if (what.ends_with(".toml") && std::filesystem::is_regular_file(what)) {
    const Config config = load_config(what, overrides);
    // Only characters have to be collected from the text.
    const auto tokenizer =
        config.data.tokenizer == "bytes" ? make_byte_tokenizer() : load_corpus(config.data).tokenizer;
    LanguageModel model(config, tokenizer->vocabulary(), *comm);
    print_model(model);
    return 0;
  }
  const LoadedModel loaded = open_model(what, overrides, *comm, true);
  std::printf("checkpoint: %s\n       step %lld of %lld, tokenizer %s\n", loaded.path.c_str(),
              static_cast<long long>(loaded.state.step), static_cast<long long>(loaded.config.train.steps),
              std::string(loaded.tokenizer->kind()).c_str());
  if (loaded.state.best_val_loss >= 0)
    std::printf("       best validation loss so far %.6f nats per token\n", loaded.state.best_val_loss);
  print_model(*loaded.model);
  return 0;
}

}  // namespace agon

#include <algorithm>
#include <cstdio>

#include "apps/causal.h"
#include "apps/utf8.h"
#include "apps/verbs.h"

namespace agon {

int generate_text(const GenerateArguments& arguments) {
  const auto comm = make_self_communicator();
  LoadedModel loaded = open_model(arguments.checkpoint, arguments.overrides, *comm);
  settle_thresholds(loaded, {}, arguments.overrides, false);
  const Tokenizer& tokenizer = *loaded.tokenizer;
  std::vector<int32_t> prompt = tokenizer.encode(arguments.prompt, "--prompt");
  std::fputs(arguments.prompt.c_str(), stdout);
  if (prompt.empty()) prompt = {std::max(0, tokenizer.end_of_document())};
  Utf8Stream whole;
  generate(*loaded.model, prompt, arguments.sampling, tokenizer.end_of_document(), [&](int32_t id) {
    const std::string piece = whole.push(tokenizer.piece(id));
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
    return true;
  });
  std::fputs((whole.finish() + "\n").c_str(), stdout);
  return 0;
}

}  // namespace agon

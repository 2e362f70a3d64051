#include <doctest/doctest.h>

#include "tests/apps/run_folder.h"

using namespace agon;
using namespace agon::testing;

TEST_CASE("generate: the prompt and as many tokens as asked for, beyond the context, the same for a seed") {
  const Folder folder;
  const auto once = [&](uint64_t seed) {
    const Quiet quiet((folder.path / "out").string());
    GenerateArguments a;
    a.checkpoint = (folder.path / "run").string();
    a.prompt = "The ";
    a.sampling.tokens = 40;  // the context is 16
    a.sampling.seed = seed;
    CHECK(generate_text(a) == 0);
    return quiet.text();
  };
  {
    const Quiet quiet((folder.path / "train").string());
    CHECK(train(folder.run("run")) == 0);
  }
  const std::string first = once(1);
  CHECK(first.starts_with("The "));
  CHECK(first.size() > 30);
  CHECK(first == once(1));
  CHECK(first != once(2));
}

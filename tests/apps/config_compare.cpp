#include "apps/config_compare.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/support/toy_strategy.h"

using namespace agon;

using Lines = std::vector<std::string>;

TEST_CASE("config_compare: equal configs do not differ, whatever their values came from") {
  Config a, b;
  b.origin["seed"] = "command line";
  CHECK(differences(a, b).empty());
}

TEST_CASE("config_compare: every key that differs, old and new") {
  Config a, b;
  b.seed = 2;
  b.model.width = 256;
  b.model.norm = "layer";
  b.optimizer.rate = 2e-3;
  CHECK(differences(a, b) == Lines{"seed: 1 -> 2", "model.width: 128 -> 256", "model.norm: \"rms\" -> \"layer\"",
                                   "optimizer.rate: 0.001 -> 0.002"});
}

TEST_CASE("config_compare: numbers differ by a bit, not by their print") {
  Config a, b;
  b.optimizer.rate = std::nextafter(a.optimizer.rate, 1);
  CHECK(differences(a, b).size() == 1);
}

TEST_CASE("config_compare: what may change on resume") {
  Config a, b;
  b.threads = 2;
  b.device = "cuda";
  b.train.steps = 5;
  b.train.out = "elsewhere";
  b.log.every = 7;
  b.log.format = "none";
  b.data.train = "a.txt";
  b.data.valid = "b.txt";
  b.parallel.expert = 4;
  CHECK(differences(a, b).size() == 9);
  CHECK(differences(a, b, free_on_resume()).empty());
  b.train.batch = 16;
  b.data.tokenizer = "chars";
  b.precision = "f64";
  CHECK(differences(a, b, free_on_resume()) ==
        Lines{"precision: \"fp32\" -> \"f64\"", "data.tokenizer: \"bytes\" -> \"chars\"", "train.batch: 8 -> 16"});
}

TEST_CASE("config_compare: what ranks must have alike leaves out paths, threads, the log and the GPU's number") {
  Config a, b;
  b.threads = 2;
  b.train.out = "elsewhere";
  b.log.every = 7;
  b.data.train = "a.txt";
  b.data.valid = "b.txt";
  b.data.tokenizer = "chars.json";
  CHECK(shared_by_ranks(a) == shared_by_ranks(b));
  a.device = "cuda:0";
  CHECK(shared_by_ranks(a) != shared_by_ranks(b));
  b.device = "cuda:1";
  CHECK(shared_by_ranks(a) == shared_by_ranks(b));
  CHECK(shared_by_ranks(a).at("device") == "cuda");
  b.parallel.expert = 4;
  CHECK(shared_by_ranks(a) != shared_by_ranks(b));
  CHECK(shared_by_ranks(b).at("parallel.expert") == "4");
}

TEST_CASE("config_compare: sections and keys that only one has") {
  const test::ToyStrategies strategies;
  Config dense, sparse;
  sparse.moe.enabled = true;
  sparse.moe.router = router_named("toy");
  CHECK(differences(sparse, sparse).empty());
  const Lines lost = differences(sparse, dense), gained = differences(dense, sparse);
  CHECK(lost.size() == gained.size());
  CHECK(std::ranges::count(lost, "moe.experts: 8 -> (none)") == 1);
  CHECK(std::ranges::count(gained, "moe.router.strategy: (none) -> \"toy\"") == 1);
  Config other = sparse;
  other.moe.router = router_named("toy_extended");
  CHECK(differences(sparse, other) ==
        Lines{"moe.router.strategy: \"toy\" -> \"toy_extended\"", "moe.router.extra: (none) -> 7"});
}

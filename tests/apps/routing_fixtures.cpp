// Layers that another program has computed, run by the probe: tests/golden/routing/*.safetensors. A fixture holds the
// text of its LAYER.toml as the metadata `layer`, the inputs under the names of a probe's IN, and what is to come out
// under those of OUT with "out." before them.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include "apps/probe.h"
#include "apps/safetensors.h"
#include "tests/support/gradient.h"
#include "tests/support/temporary_folder.h"

using namespace agon;
using namespace agon::testing;

namespace {

namespace fs = std::filesystem;

std::vector<std::string> fixtures_in(const fs::path& folder) {
  std::vector<std::string> paths;
  if (!fs::exists(folder)) return paths;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path().string());
  std::ranges::sort(paths);
  return paths;
}

/// The largest error there may be, relative, in the norm of each tensor.
constexpr double kExact = 1e-10, kSingle = 1e-5;

bool is_zero(const Tensor& t) {
  const Tensor values = converted(t, DType::f64);
  return std::ranges::all_of(values.data<const double>(), [](double v) { return v == 0; });
}

/// Bits, not values: a -0 shows that something was computed where nothing should have been.
bool is_zero_to_the_bit(const Tensor& t) { return identical(t, Tensor(t.shape(), t.dtype()).zero()); }

/// What is wrong with a tensor that came out, in words; "" when nothing is.
std::string objection(const std::string& name, const Tensor& found, const Tensor& expected, double tolerance) {
  if (found.shape() != expected.shape()) return text("has shape ", found.shape(), ", expected ", expected.shape());
  if (name == "selected") return identical(found, converted(expected, DType::i32)) ? "" : "is another selection";
  if (is_zero(expected) && name.starts_with("grad."))
    return is_zero_to_the_bit(found) ? "" : text("has norm ", std::sqrt(dot(found, found)), ", expected 0 exactly");
  const bool zero = is_zero(expected);
  const double limit = zero ? tolerance / 100 : tolerance, error = relative_error(found, expected);
  if (error <= limit) return "";  // not so for NaN
  return text("has ", zero ? "an absolute" : "a relative", " error of ", error, ", expected at most ", limit);
}

/// Runs a fixture in the dtype and lists all that differs from what it holds.
std::vector<std::string> objections(const std::string& path, const std::string& dtype, double tolerance) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  check(file.metadata().contains("layer"), path, ": has no metadata 'layer'");
  ProbeLayer layer = parse_probe_layer(file.metadata().at("layer"), path + " (its layer)");
  layer.dtype = dtype;
  Tensors in, expected;
  ProbeFlags flags;
  for (const TensorEntry& entry : file.tensors()) {
    const std::string& name = entry.name;
    const bool out = name.starts_with("out.");
    (out ? expected : in).emplace(out ? name.substr(4) : name, file.load(name));
    flags.each_loss |= name.starts_with("out.grad.task.") || name.starts_with("out.grad.loss.");
    flags.expert_outputs |= name == "out.expert_outputs";
  }
  check(expected.contains("selected") && expected.contains("y"), path, ": has no 'out.selected' or no 'out.y'");
  const Tensors found = run_probe(layer, in, path, flags);
  std::vector<std::string> all;
  for (const auto& [name, tensor] : expected) {
    const auto at = found.find(name);
    const std::string why =
        at == found.end() ? "did not come out" : objection(name, at->second, tensor, tolerance);
    if (!why.empty()) all.push_back(text(fs::path(path).filename().string(), " in ", dtype, ": ", name, ' ', why));
  }
  return all;
}

/// A fixture made by the probe itself, with what `change` does to it.
struct Made {
  Metadata metadata{
      {"layer", "width = 4\ndtype = 'f64'\n[moe]\nexperts = 3\n[moe.router]\nk = 2\nz_coefficient = 0.1\n"}};
  Tensors tensors{{"x", random({5, 4}, 1)},
                  {"dy", random({5, 4}, 2)},
                  {"router.weight", random({3, 4}, 3)},
                  {"experts.gate_up", random({3, 6, 4}, 4)},
                  {"experts.down", random({3, 4, 3}, 5)}};

  explicit Made(const ProbeFlags& flags) {
    const Tensors out = run_probe(parse_probe_layer(metadata["layer"], "layer"), tensors, "in", flags);
    for (const auto& [name, t] : out) tensors["out." + name] = clone(t);
  }
  /// What is found wrong with it once it is written.
  std::vector<std::string> objections(const std::string& dtype, double tolerance) const {
    const TemporaryFolder folder;
    std::vector<NamedTensor> all;
    for (const auto& [name, t] : tensors) all.push_back({name, t});
    write_safetensors(folder / "made.safetensors", all, metadata);
    const std::vector<std::string> paths = fixtures_in(folder.path());
    check(paths.size() == 1, "found ", paths.size(), " fixtures, expected the one that was made");
    return ::objections(paths.front(), dtype, tolerance);
  }
};

}  // namespace

TEST_CASE("routing fixtures: layers computed by another program") {
  const std::vector<std::string> paths = fixtures_in(fs::path(AGON_SOURCE_DIR) / "tests/golden/routing");
  CHECK_MESSAGE(!paths.empty(), "tests/golden/routing holds no fixtures");
  for (const std::string& path : paths) {
    for (const std::string& line : objections(path, "f64", kExact)) FAIL_CHECK(line);
    for (const std::string& line : objections(path, "f32", kSingle)) FAIL_CHECK(line);
  }
}

TEST_CASE("routing fixtures: what the comparison accepts and what it does not") {
  for (const ProbeFlags flags : {ProbeFlags{}, ProbeFlags{true, true}}) {
    const Made made(flags);
    CHECK(made.objections("f64", kExact).empty());
    CHECK(made.objections("f32", kSingle).empty());
    CHECK(made.objections("f32", kExact).size() > 5);  // rounding shows
  }
  const auto only = [](const Made& made, const std::string& part) {
    const std::vector<std::string> all = made.objections("f64", kExact);
    CAPTURE(all.size());
    REQUIRE(all.size() == 1);
    INFO(all.front());
    CHECK(contains(all.front(), part));
  };
  const auto changed = [](const std::string& name, const std::function<void(Tensor&)>& change) {
    Made made({true, true});
    change(made.tensors.at("out." + name));
    return made;
  };
  const auto first = [](double by) { return [by](Tensor& t) { t.data<double>()[0] += by; }; };
  only(changed("y", first(1e-8)), "made.safetensors in f64: y has a relative error of");
  only(changed("y", first(NAN)), "y has a relative error of nan");
  only(changed("grad.x", first(1e-6)), "grad.x has");
  only(changed("loss.z", first(1e-6)), "loss.z has");
  only(changed("grad.loss.z.experts.down", first(1e-100)), "grad.loss.z.experts.down has");
  only(changed("router.bias", first(1e-3)), "router.bias has");
  only(changed("selected", [](Tensor& t) { t.data<int32_t>()[0] ^= 1; }), "selected is another selection");
  only(changed("weights", [](Tensor& t) { t = t.reshape({3, 5}); }), "weights has shape [5, 3], expected [3, 5]");
  only(changed("grad.experts.down", [](Tensor& t) { t.zero(); }), "expected 0 exactly");
  only(changed("logits", [](Tensor& t) { t.zero(); }), "logits has an absolute error of");
  only(changed("expert_outputs", first(NAN)), "expert_outputs");
  Made more({});
  more.tensors["out.affinity"] = random({5, 3}, 6);
  only(more, "affinity did not come out");

  Made lacking({});
  lacking.tensors.erase("out.selected");
  CHECK_THROWS_AS(lacking.objections("f64", kExact), Error);
  Made bare({});
  bare.metadata.clear();
  CHECK_THROWS_AS(bare.objections("f64", kExact), Error);
  CHECK(fixtures_in("/nowhere").empty());
  CHECK(is_zero_to_the_bit(Tensor({2}, DType::f64).zero()));
  const Tensor negative = tensor_of<double>({-0.0});
  CHECK_FALSE(is_zero_to_the_bit(negative));
}

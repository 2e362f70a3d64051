#include <algorithm>
#include <filesystem>
#include <numeric>
#include <string_view>

#include "apps/config.h"
#include "moe/schedule.h"

namespace agon {

namespace {

/// Finds the option `group` of a strategy that has one.
struct GroupOption final : OptionVisitor {
  int64_t group = 0;
  void operator()(const char* name, int64_t& value, Range, const char*) override {
    if (std::string_view(name) == "group") group = value;
  }
  void operator()(const char*, double&, Range, const char*) override {}
  void operator()(const char*, bool&, const char*) override {}
  void operator()(const char*, std::string&, const std::vector<std::string>&, const char*) override {}
};

void validate_model(const Config& c) {
  const ModelOptions& m = c.model;
  if (m.head_width == 0) {
    require(m.width % m.heads == 0, c.named("model.heads"), ": ", m.heads, " heads do not divide the width of ",
            m.width, "; expected a divisor, or model.head_width");
  }
  const int64_t kv_heads = m.kv_heads ? m.kv_heads : m.heads;
  require(kv_heads <= m.heads && m.heads % kv_heads == 0, c.named("model.kv_heads"), ": ", kv_heads,
          " heads of keys and values do not divide ", m.heads, " heads; expected a divisor of model.heads");
  const int64_t head_width = m.head_width ? m.head_width : m.width / m.heads;
  require(m.position != "rope" || head_width % 2 == 0, c.named("model.head_width"),
          ": rope turns pairs of numbers, but a head has ", head_width, "; expected an even width per head");
}

/// " (k from FILE:4, norm from command line)": the keys of a section that were given.
std::string given_in(const Config& c, const std::string& section) {
  std::string given;
  for (const auto& [key, place] : c.origin) {
    if (key.starts_with(section + "."))
      given += (given.empty() ? " (" : ", ") + key.substr(section.size() + 1) + " from " + place;
  }
  return given.empty() ? given : given + ")";
}

void validate_router(const Config& c, const std::string& section, const RouterChoice& choice) {
  check(choice.options != nullptr, section, " has no options: use router_named");
  try {
    choice.options->validate(c.moe.layer.experts);
  } catch (const UserError& e) {
    const std::string where = section == "moe.router" ? "" : section + ": ";  // the options say moe.router.KEY
    throw UserError(where + e.what() + given_in(c, section));
  }
}

void validate_experts(const Config& c) {
  require(c.parallel.expert == 1 || c.moe.enabled, c.named("parallel.expert"), ": ", c.parallel.expert,
          " ranks for experts, but the model has none; expected 1, or a section [moe]");
  if (!c.moe.enabled) return;
  require(c.moe.layer.experts % c.parallel.expert == 0, c.named("parallel.expert"), ": ", c.moe.layer.experts,
          " experts do not divide over ", c.parallel.expert, " ranks; expected a divisor of moe.experts");
  c.validate_layer();
  bool any = false;
  for (int64_t i = 0; i < c.model.layers; ++i) any = any || c.moe.has_experts(i);
  require(any, c.named(c.origin.contains("moe.every") ? "moe.every" : "moe.first_dense"),
          ": every = ", c.moe.placement.every, " and first_dense = ", c.moe.placement.first_dense,
          " leave no block with experts among ", c.model.layers);
  for (const auto& [index, choice] : c.moe.layers) {
    const std::string section = text("moe.layer.", index);
    require(index < c.model.layers, c.named(section), ": there is no block ", index,
            "; expected an index below model.layers = ", c.model.layers);
    require(c.moe.has_experts(index), c.named(section), ": block ", index,
            " has no experts (moe.every = ", c.moe.placement.every, ", moe.first_dense = ", c.moe.placement.first_dense,
            ")");
    validate_router(c, section, choice);
  }
  try {
    CompetitionSchedule(c.competing_layers(), 0, 0);  // whether its cap holds the events
  } catch (const UserError& e) { throw UserError(e.what() + given_in(c, "moe.router")); }
}

}  // namespace

void Config::validate_layer() const {
  require(!moe.layer.shared_gate || moe.layer.shared_experts > 0, named("moe.shared_gate"),
          ": there is no shared expert to weigh; expected moe.shared_experts > 0");
  validate_router(*this, "moe.router", moe.router);
}

int64_t Config::routing_group() const {
  if (!moe.enabled) return 1;
  int64_t all = 1;
  for (int64_t block = 0; block < model.layers; ++block) {
    if (!moe.has_experts(block)) continue;
    GroupOption option;
    moe.router_of(block).options->visit(option);
    if (option.group > 0) all = std::lcm(all, option.group);
  }
  return all;
}

std::map<int, CompetitionRate> Config::competing_layers() const {
  std::map<int, CompetitionRate> all;
  for (int64_t block = 0; block < model.layers; ++block)
    if (moe.has_experts(block))
      if (const CompetitionRate* rate = moe.router_of(block).options->competition()) all.emplace(int(block), *rate);
  return all;
}

std::vector<std::string> Config::warnings() const {
  std::vector<std::string> all;
  for (int64_t block = 0; block < model.layers; ++block) {
    if (!moe.has_experts(block)) continue;
    const std::string warning = moe.router_of(block).options->warning();
    if (!warning.empty() && std::ranges::find(all, warning) == all.end()) all.push_back(warning);
  }
  return all;
}

void Config::validate() const {
  require(precision != "f64" || parsed_device().kind == Device::cpu, named("precision"),
          ": f64 exists on the CPU only; expected fp32 or bf16 on ", device);
  validate_model(*this);
  validate_experts(*this);
  require(train.micro_batch == 0 || train.batch % train.micro_batch == 0, named("train.micro_batch"), ": ",
          train.micro_batch, " does not divide the batch of ", train.batch,
          "; expected a divisor of train.batch, or 0 for the whole batch");
  const int64_t group = routing_group(), micro = train.micro_batch ? train.micro_batch : train.batch;
  require(micro % group == 0, named("moe.router.group"), ": routing groups of ", group,
          " sequences do not fill a micro-batch of ", micro, "; expected a divisor of it");
  require(group == 1 || !data.mask_documents, named("data.mask_documents"), ": true, with routing groups of ", group,
          " sequences: a group of whole documents is not supported in this version");
  require(!train.out.empty(), named("train.out"), ": empty; expected the run directory");
  require(optimizer.schedule == "constant" || optimizer.final_rate <= optimizer.rate, named("optimizer.final_rate"),
          ": ", optimizer.final_rate, " is above the rate of ", optimizer.rate, "; expected at most optimizer.rate");
  require(!data.train.empty(), named("data.train"), ": empty; expected a file, a folder or builtin:domains");
  require(data.tokenizer == "bytes" || data.tokenizer == "chars" || std::filesystem::is_regular_file(data.tokenizer),
          named("data.tokenizer"), ": \"", data.tokenizer,
          "\" is no file; expected bytes, chars or the path of a tokenizer file");
}

}  // namespace agon

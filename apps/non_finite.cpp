#include "apps/non_finite.h"

#include <cmath>

#include "autograd/tape.h"
#include "core/copy.h"
#include "distributed/together.h"

namespace agon {

namespace {

bool finite(const Tensor& there) {
  const Tensor x = on_host(there);
  return visit_float(x.dtype(), [&]<class T>() {
    for (const T v : x.data<const T>())
      if (!std::isfinite(float(v))) return false;
    return true;
  });
}

}  // namespace

std::string non_finite_parameter(LanguageModel& model) {
  std::string found;
  each_parameter(model, [&](const std::string& path, Parameter& p) {
    if (found.empty() && !finite(p.value)) found = "parameter " + path;
  });
  return found;
}

NonFinite non_finite_output(LanguageModel& model, const Sequences& at, const RouterContext& context) {
  NonFinite found;
  const auto look = [&](const Tensor& x, const std::string& name) {
    if (!found.where.empty()) return;
    if (finite(x))
      ++found.after;
    else
      found.where = "output of " + name;
  };
  const Tape::Pause pause;
  try {
    const Passed passed = model(at, context, nullptr, [&](int block, const char* what, const Tensor& x) {
      look(x, text("blocks.", block, ".", what));
    });
    look(passed.hidden, "the last norm");
  } catch (const Error&) {  // a router refuses scores that are NaN
    if (found.where.empty()) throw;
  }
  return found;
}

std::string earliest(const NonFinite& here, Communicator& all) {
  if (all.size() == 1) return here.where;
  const std::vector<std::string> found = all_texts(all, here.where.empty() ? "" : text(here.after, ' ', here.where));
  int best = -1, after = 0;
  for (int r = 0; r < all.size(); ++r) {
    if (found[size_t(r)].empty()) continue;
    if (const int n = std::stoi(found[size_t(r)]); best < 0 || n < after) best = r, after = n;
  }
  if (best < 0) return "";
  const std::string& line = found[size_t(best)];
  return text(line.substr(line.find(' ') + 1), " on rank ", best);
}

}  // namespace agon

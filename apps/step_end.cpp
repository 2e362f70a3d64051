#include "apps/step_end.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/copy.h"

namespace agon {

StepEnd meet(const StepEnd& here, const Communication& moved, Ranks& ranks, StepReport& report) {
  if (ranks.size() == 1) return here;
  constexpr size_t kNumbers = 5;
  const double share = report.seconds > 0 ? moved.seconds / report.seconds : 0;
  const Tensor all =
      ranks.all.all_gather(tensor_of<double>({double(here.stop), double(here.save), share, moved.bytes, moved.waited}));
  const auto number = [&](int rank, size_t i) { return all.data<const double>()[size_t(rank) * kNumbers + i]; };
  StepEnd end;
  double waited = 0, least = 0;
  int slowest = 0;
  for (int r = 0; r < ranks.size(); ++r) {
    end.stop = std::max(end.stop, int(number(r, 0)));
    end.save = end.save || number(r, 1) != 0;
    report.comm_share += number(r, 2) / ranks.size();
    report.comm_bytes += number(r, 3);
    waited += number(r, 4);
    if (r == 0 || number(r, 4) < least) slowest = r, least = number(r, 4);
  }
  report.waited = (waited - least) / (ranks.size() - 1) - least;  // what all wait in every call is nobody's
  if (report.waited > 0.02 * report.seconds) report.slowest = slowest;
  return end;
}

std::string slow_rank(const StepReport& r, Ranks& ranks) {
  if (r.slowest < 0 || r.waited <= std::max(1.0, r.seconds / 2)) return "";
  return fmt::format("rank {} on {} is slow: the others waited {:.1f} s for it in step {}, which took {:.1f} s",
                     r.slowest, ranks.all.host(r.slowest), r.waited, r.step, r.seconds);
}

}  // namespace agon

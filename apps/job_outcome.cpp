#include "apps/job_outcome.h"

#include <sys/wait.h>

#include <algorithm>
#include <csignal>

#include "apps/processes.h"
#include "core/error.h"
#include "distributed/host.h"

namespace agon {

namespace {

constexpr int kUserMistake = 2;

bool exited(const RankEnd& end, int code) { return WIFEXITED(end.status) && WEXITSTATUS(end.status) == code; }
bool signalled(const RankEnd& end, int signal) { return WIFSIGNALED(end.status) && WTERMSIG(end.status) == signal; }
/// It saved and ended, or had no handler.
bool obeyed(const RankEnd& end, int signal) { return exited(end, 128 + signal) || signalled(end, signal); }

std::string described(int status) {
  return WIFSIGNALED(status) ? "was killed by " + signal_name(WTERMSIG(status))
                             : text("ended with exit code ", WEXITSTATUS(status));
}

std::string described(const RankEnd& end, int ranks) {
  return text("rank ", end.rank, " of ", ranks, " (", this_host(), ") ", described(end.status));
}

/// The rank that the others' ends follow from: not one that somebody ended afterwards, if there is another.
const RankEnd* culprit(const std::vector<RankEnd>& ends) {
  const auto failed = [](const RankEnd& e) { return !exited(e, 0); };
  const auto by_itself = [&](const RankEnd& e) { return failed(e) && !e.killed && !obeyed(e, SIGTERM); };
  auto found = std::ranges::find_if(ends, by_itself);
  if (found == ends.end()) found = std::ranges::find_if(ends, failed);
  return found == ends.end() ? nullptr : &*found;
}

JobOutcome failure(const std::string& message) { return {1, true, message}; }

JobOutcome after_stop(const std::vector<RankEnd>& ends, int ranks, int stop) {
  for (const RankEnd& end : ends)
    if (end.killed) return {1, false, text("rank ", end.rank, " of ", ranks, " did not end in time and was killed")};
  for (const RankEnd& end : ends)
    if (!exited(end, 0) && !obeyed(end, stop)) return {exited(end, kUserMistake) ? 2 : 1, false, described(end, ranks)};
  const bool all_done = int(ends.size()) == ranks && std::ranges::all_of(ends, [](auto& e) { return exited(e, 0); });
  return {all_done ? 0 : 128 + stop, false, {}};
}

}  // namespace

JobOutcome judge(const std::vector<RankEnd>& ends, int ranks, int stop, int starter) {
  if (stop) return after_stop(ends, ranks, stop);
  for (const RankEnd& end : ends)
    if (exited(end, kUserMistake)) return {2, false, described(end, ranks)};
  if (WIFSIGNALED(starter)) return failure("what starts the ranks " + described(starter));  // they end with it
  for (const int signal : {SIGINT, SIGTERM})  // sent to the ranks by somebody else
    if (int(ends.size()) == ranks && std::ranges::all_of(ends, [&](auto& e) { return exited(e, 128 + signal); }))
      return {128 + signal, false, {}};

  const RankEnd* const first = culprit(ends);
  if (!first && int(ends.size()) == ranks && starter == 0) return {};
  std::string early;  // ranks that had ended well before the failure, or in its place
  for (const RankEnd& end : ends) {
    if (&end == first) break;
    if (exited(end, 0)) early += text(early.empty() ? "rank " : ", ", end.rank);
  }
  if (first && (first->killed || obeyed(*first, SIGTERM)) && !early.empty())
    return failure(text(early, " of ", ranks, " (", this_host(), ") ended early, with exit code 0"));
  if (first)
    return failure(described(*first, ranks) + (early.empty() ? "" : text(", after ", early, " had ended with 0")));
  if (ends.empty()) return failure(text("no rank began; what starts them ", described(starter)));
  if (int(ends.size()) == ranks)
    return failure(text("all ranks ended with exit code 0, what started them ", described(starter)));
  return failure(text("only ", ends.size(), " of ", ranks, " ranks began; what starts them ", described(starter)));
}

}  // namespace agon

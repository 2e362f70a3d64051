#include "apps/job_outcome.h"

#include <doctest/doctest.h>

#include <csignal>

#include "distributed/host.h"

using namespace agon;

namespace {

constexpr int kMpirunFailed = 1 << 8;
int exit_with(int code) { return code << 8; }

void check_outcome(const JobOutcome& outcome, int code, bool may_restart, const std::string& message) {
  CHECK(outcome.code == code);
  CHECK(outcome.may_restart == may_restart);
  CHECK(outcome.message == message);
}

std::string of(int rank, const std::string& how) {
  return "rank " + std::to_string(rank) + " of 3 (" + this_host() + ") " + how;
}

const RankEnd kDone[] = {{0, 0, false}, {1, 0, false}, {2, 0, false}};

}  // namespace

TEST_CASE("job outcome: all ranks done") {
  check_outcome(judge({kDone[2], kDone[0], kDone[1]}, 3, 0, 0), 0, false, "");
}

TEST_CASE("job outcome: the first rank that failed by itself is named") {
  check_outcome(judge({{1, SIGKILL, false}, {0, exit_with(143), false}, {2, exit_with(1), false}}, 3, 0, 0), 1, true,
                of(1, "was killed by SIGKILL (Killed)"));
  check_outcome(judge({{0, SIGTERM, false}, {2, SIGSEGV, false}, {1, SIGKILL, true}}, 3, 0, kMpirunFailed), 1, true,
                of(2, "was killed by SIGSEGV (Segmentation fault)"));
  check_outcome(judge({{1, exit_with(3), false}, {0, SIGKILL, true}, {2, SIGKILL, true}}, 3, 0, 0), 1, true,
                of(1, "ended with exit code 3"));
}

TEST_CASE("job outcome: a user's mistake is one whoever ended first") {
  check_outcome(judge({{0, exit_with(1), false}, {1, exit_with(2), false}, {2, SIGTERM, false}}, 3, 0, 0), 2, false,
                of(1, "ended with exit code 2"));
}

TEST_CASE("job outcome: a rank that ended early with 0 is named") {
  check_outcome(judge({kDone[2], {0, SIGTERM, false}, {1, SIGKILL, true}}, 3, 0, kMpirunFailed), 1, true,
                "rank 2 of 3 (" + this_host() + ") ended early, with exit code 0");
  check_outcome(judge({kDone[2], {0, exit_with(1), false}, {1, SIGKILL, true}}, 3, 0, kMpirunFailed), 1, true,
                of(0, "ended with exit code 1, after rank 2 had ended with 0"));
}

TEST_CASE("job outcome: without ranks, or with all of them done, what starts them tells") {
  check_outcome(judge({}, 3, 0, exit_with(132)), 1, true, "no rank began; what starts them ended with exit code 132");
  check_outcome(judge({kDone[0]}, 3, 0, 0), 1, true,
                "only 1 of 3 ranks began; what starts them ended with exit code 0");
  check_outcome(judge({kDone[0], kDone[1], kDone[2]}, 3, 0, kMpirunFailed), 1, true,
                "all ranks ended with exit code 0, what started them ended with exit code 1");
  check_outcome(judge({{0, exit_with(1), false}, {1, SIGKILL, true}, {2, SIGKILL, true}}, 3, 0, SIGKILL), 1, true,
                "what starts the ranks was killed by SIGKILL (Killed)");
}

TEST_CASE("job outcome: a signal that ended the job") {
  const std::vector<RankEnd> saved = {{0, exit_with(143), false}, {1, exit_with(143), false}, {2, SIGTERM, false}};
  check_outcome(judge(saved, 3, SIGTERM, kMpirunFailed), 143, false, "");
  check_outcome(judge({kDone[0], kDone[1], kDone[2]}, 3, SIGTERM, 0), 0, false, "");  // it came too late
  check_outcome(judge({}, 3, SIGINT, exit_with(1)), 130, false, "");                  // and too early
  check_outcome(judge({{0, exit_with(130), false}, kDone[1], kDone[2]}, 3, SIGINT, 0), 130, false, "");
  // Sent to the ranks by somebody else:
  check_outcome(judge({{0, exit_with(143), false}, {1, exit_with(143), false}, {2, exit_with(143), false}}, 3, 0, 0),
                143, false, "");
}

TEST_CASE("job outcome: what failed after a signal is no success, and no reason to start again") {
  check_outcome(judge({{0, exit_with(143), false}, {1, SIGKILL, true}, {2, exit_with(143), false}}, 3, SIGTERM, 0), 1,
                false, "rank 1 of 3 did not end in time and was killed");
  check_outcome(
      judge({{0, exit_with(143), false}, {1, exit_with(1), false}, {2, exit_with(143), false}}, 3, SIGTERM, 0), 1,
      false, of(1, "ended with exit code 1"));
}

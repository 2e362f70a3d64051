#pragma once
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace agon {

/// `end` is no call: it is how a rank that has done its work meets the others for the last time.
enum class Collective { all_to_all, all_reduce, broadcast, all_gather, reduce_scatter, barrier, split, end };
std::ostream& operator<<(std::ostream& os, Collective c);

/// What the calls of one kind have moved between this rank and the others of its group, and the time they took.
struct Traffic {
  int64_t calls = 0;
  int64_t sent = 0, received = 0;  ///< bytes of tensors to and from other ranks; what agrees on a call is not counted
  double seconds = 0;              ///< in the calls, waiting included
  double waited = 0;               ///< of them, until the last rank had come
};

/// A collective call that has begun and not ended.
class StartedCall {
 public:
  virtual ~StartedCall() = default;
  /// Waits for its end and returns its result: what all_reduce was given, reduce_scatter's block. To be called once.
  virtual Tensor finish() = 0;
};

/// A group of ranks that work together. Every call is collective: all ranks of the group make the same calls in the
/// same order. All are meaningful for one rank. Sums are of f32, bf16, f64 or i32, made in rank order (bf16 in f32,
/// rounded once), so every rank has the same bits. Ranks exchange copies: results are allocated by the thread that
/// calls. Every rank gets an Error naming the operation when a rank failed or did not come in time, or, with what each
/// gave, when they disagree on operation, shape or dtype. After an Error every further call fails too.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Ranks that give the same color form a group, ordered by key, then by rank.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  /// Rows of `send` go to ranks 0, 1, ... in blocks of send_rows; returns the arriving rows, by source rank.
  /// send [sum(send_rows), D]; receive_rows[r] must equal what rank r sends here.
  virtual Tensor all_to_all(const Tensor& send, std::span<const int64_t> send_rows,
                            std::span<const int64_t> receive_rows) = 0;
  /// In place: the sum over ranks.
  virtual void all_reduce(const Tensor& t) = 0;
  /// In place: the values of rank `root`. Any dtype, as for all that moves rows without adding.
  virtual void broadcast(const Tensor& t, int root) = 0;
  /// [n, ...] on each rank -> [sum of n, ...], by rank; n may differ between ranks, and be 0.
  virtual Tensor all_gather(const Tensor& t) = 0;
  /// t [size * n, ...] -> [n, ...]: block `rank` of the sum over ranks.
  virtual Tensor reduce_scatter(const Tensor& t) = 0;
  virtual void barrier() = 0;

  /// all_reduce and reduce_scatter that go on while the rank works. The tensor must be left alone until finish(), and
  /// every started call be finished. All ranks start their calls in the same order as all others; results have the bits
  /// of the calls that wait.
  virtual std::unique_ptr<StartedCall> start_all_reduce(const Tensor& t);
  virtual std::unique_ptr<StartedCall> start_reduce_scatter(const Tensor& t);
  /// Lets what was started go on, without waiting.
  virtual void progress() {}

  /// The machine a rank of this group runs on.
  virtual std::string host(int rank) const = 0;
  /// The optimizer step (from 1) that failures of later calls name, in this group and in all it was split from or into.
  virtual void at_step(int64_t step) = 0;
  /// Of this group since it was made, by kind of call.
  virtual std::map<Collective, Traffic> traffic() const = 0;

  /// The seconds this rank has waited, in calls of this group, for each rank of it to come.
  virtual std::vector<double> waited_for() const { return std::vector<double>(size_t(size())); }

  /// Makes every rank's pending and future calls fail with `reason`, in this group and in all it was split from or
  /// into.
  virtual void abort(const std::string& reason) = 0;
};

struct CommunicatorOptions {
  std::chrono::milliseconds deadline = std::chrono::seconds(60);  ///< the longest that a call waits for other ranks
  /// Whether somebody wants the job to stop; asked on another thread. A rank whose call goes on waiting then says on
  /// stderr what it waits for.
  std::function<bool()> asked_to_stop = [] { return false; };
  Device device = {Device::cuda, 0};  ///< of this rank, for NCCL
};

/// One rank: every call returns what it was given, after the same checks.
std::unique_ptr<Communicator> make_self_communicator();

/// Runs body(comm) on n threads, one per rank; tensors are on the CPU. When a rank throws, the others' calls fail; the
/// first exception is thrown again here once all have ended. A call that has waited for `deadline` fails on all ranks,
/// naming those that did not come; one for a rank whose body has returned fails at once.
void run_on_threads(int n, const std::function<void(Communicator&)>& body,
                    std::chrono::milliseconds deadline = std::chrono::seconds(60));

}  // namespace agon

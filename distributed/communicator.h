#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/tensor.h"

namespace agon {

/// A group of ranks that work together. Every call is collective: all ranks of the group make the same calls in the same
/// order. All are meaningful for one rank. Results are summed in rank order, so every rank has the same bits.
/// Throws Error naming the operation when a rank failed, or when ranks disagree on operation, size or dtype.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Ranks that give the same color form a group, ordered by key, then by rank.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  /// Rows of `send` go to ranks 0, 1, ... in blocks of send_rows; returns the arriving rows, by source rank.
  /// send [sum(send_rows), D]; receive_rows[r] must equal what rank r sends here.
  virtual Tensor all_to_all(const Tensor& send, std::span<const int64_t> send_rows, std::span<const int64_t> receive_rows) = 0;
  /// In place: the sum over ranks.
  virtual void all_reduce(const Tensor& t) = 0;
  /// In place: the values of rank `root`.
  virtual void broadcast(const Tensor& t, int root) = 0;
  /// [n, ...] on each rank -> [size * n, ...], by rank; n may differ between ranks.
  virtual Tensor all_gather(const Tensor& t) = 0;
  /// t [size * n, ...] -> [n, ...]: block `rank` of the sum over ranks.
  virtual Tensor reduce_scatter(const Tensor& t) = 0;
  virtual void barrier() = 0;
  /// Makes every other rank's pending and future calls fail with `reason`.
  virtual void abort(const std::string& reason) = 0;
};

/// One rank: every call returns what it was given.
std::unique_ptr<Communicator> make_self_communicator();

/// Runs body(comm) on n threads, one per rank. When a rank throws, the others' calls fail; the first exception is thrown
/// again here once all have ended.
void run_on_threads(int n, const std::function<void(Communicator&)>& body);

}  // namespace agon

#pragma once
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "distributed/communicator.h"
#include "distributed/nccl_library.h"

namespace agon {

struct NcclOptions {
  Device device = {Device::cuda, 0};
  /// Gives the ranks and hosts, and carries what is on the host: small tensors, splits, barriers, and the comparison of
  /// what the ranks have called.
  std::unique_ptr<Communicator> control;
  std::chrono::milliseconds deadline = std::chrono::seconds(60);  ///< from a call's beginning on the device to its end
  /// Gives every rank what rank 0's buffer has. Without it the control communicator broadcasts.
  std::function<void(std::span<std::byte>)> share_id;
  bool send_to_self = false;             ///< own rows too go through NCCL: for tests
  const NcclLibrary* library = nullptr;  ///< for tests; else the module agon_nccl.so is opened
};

/// Ranks with a GPU each, by NCCL: tensors on `device` go through it, tensors on the host through `control`. Collective
/// over control's ranks.
///
/// Calls return when they stand in the communicator's stream; this thread's later work on the device waits for them
/// there, the host does not. all_gather asks for the other ranks' numbers of rows on the host. Sums are made in NCCL's
/// order, not by rank: the same bits on every rank, and in every run on the same machines; bf16 is summed in f32 and
/// rounded once. Traffic::seconds are the device's, waiting for other ranks included; NCCL does not tell how much of
/// them was waiting.
///
/// Ranks that call differently show as a call that does not end; wherever they meet on the host they compare what they
/// have called, and the Error says what differed. A call that is not over in time, or an error of NCCL, aborts all
/// communicators of this rank: the next call of any kind throws, with the last calls and where they stood.
///
/// Two ranks must not share a GPU: NCCL refuses. For tests they may be made to look like ranks on different machines,
/// by setting NCCL_HOSTID to a value of its own for each rank, NCCL_SOCKET_IFNAME=lo and NCCL_IB_DISABLE=1 before
/// start.
///
/// UserError: NCCL or the GPU is missing. Error: the ranks do not find each other in time, or two have the same GPU.
std::unique_ptr<Communicator> make_nccl_communicator(NcclOptions options);

}  // namespace agon

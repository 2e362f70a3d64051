#include <nccl.h>

#include <cstring>

#include "distributed/nccl_library.h"

namespace {

using agon::NcclLibrary;

static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 18, 1), "agon needs NCCL 2.18.1 or newer (ncclCommSplit)");
static_assert(NcclLibrary::kIdBytes == NCCL_UNIQUE_ID_BYTES);
static_assert(NcclLibrary::success == int(ncclSuccess) && NcclLibrary::in_progress == int(ncclInProgress) &&
              NcclLibrary::unhandled_cuda_error == int(ncclUnhandledCudaError) &&
              NcclLibrary::system_error == int(ncclSystemError) &&
              NcclLibrary::internal_error == int(ncclInternalError) &&
              NcclLibrary::invalid_argument == int(ncclInvalidArgument) &&
              NcclLibrary::invalid_usage == int(ncclInvalidUsage) && NcclLibrary::remote_error == int(ncclRemoteError));
static_assert(NcclLibrary::i32 == int(ncclInt32) && NcclLibrary::f32 == int(ncclFloat32) &&
              NcclLibrary::f64 == int(ncclFloat64) && NcclLibrary::bf16 == int(ncclBfloat16));

ncclComm_t communicator_of(void* c) { return static_cast<ncclComm_t>(c); }
cudaStream_t stream_of(void* s) { return static_cast<cudaStream_t>(s); }

ncclConfig_t non_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

/// Calls f(i) for i < count between the marks of a group. The end is marked whatever f says, and the first error wins.
template <class F>
int grouped(int count, F&& f) {
  if (const ncclResult_t code = ncclGroupStart(); code != ncclSuccess) return code;
  ncclResult_t first = ncclSuccess;
  for (int i = 0; i < count && (first == ncclSuccess || first == ncclInProgress); ++i) first = f(i);
  const ncclResult_t end = ncclGroupEnd();
  return first == ncclSuccess || first == ncclInProgress ? end : first;
}

int open(void** communicator, int ranks, const void* id, int rank) {
  ncclConfig_t config = non_blocking();
  ncclUniqueId shared;
  std::memcpy(&shared, id, sizeof shared);
  return ncclCommInitRankConfig(reinterpret_cast<ncclComm_t*>(communicator), ranks, shared, rank, &config);
}

int split(void* communicator, int color, int key, void** part) {
  ncclConfig_t config = non_blocking();
  return ncclCommSplit(communicator_of(communicator), color, key, reinterpret_cast<ncclComm_t*>(part), &config);
}

int broadcast(void* communicator, const NcclLibrary::Gift* gifts, int count, void* stream) {
  return grouped(count, [&](int i) {
    const NcclLibrary::Gift& g = gifts[i];
    return ncclBroadcast(g.from, g.to, g.bytes, ncclUint8, g.root, communicator_of(communicator), stream_of(stream));
  });
}

int send_receive(void* communicator, const NcclLibrary::Transfer* transfers, int count, void* stream) {
  return grouped(count, [&](int i) {
    const NcclLibrary::Transfer& t = transfers[i];
    ncclResult_t code = ncclSuccess;
    if (t.send_bytes)
      code = ncclSend(t.send, t.send_bytes, ncclUint8, t.rank, communicator_of(communicator), stream_of(stream));
    if (t.receive_bytes && (code == ncclSuccess || code == ncclInProgress))
      code = ncclRecv(t.receive, t.receive_bytes, ncclUint8, t.rank, communicator_of(communicator), stream_of(stream));
    return code;
  });
}

constexpr NcclLibrary kLibrary = {
    .layout = NcclLibrary::kLayout,
    .built_for = NCCL_VERSION_CODE,
    .version = [](int* version) -> int { return ncclGetVersion(version); },
    .code_text = [](int code) { return ncclGetErrorString(ncclResult_t(code)); },
    .last_error = [](void* c) { return ncclGetLastError(communicator_of(c)); },
    .make_id = [](void* id) -> int { return ncclGetUniqueId(static_cast<ncclUniqueId*>(id)); },
    .open = open,
    .split = split,
    .all_reduce = [](void* c, const void* from, void* to, size_t elements, int type, void* stream) -> int {
      return ncclAllReduce(from, to, elements, ncclDataType_t(type), ncclSum, communicator_of(c), stream_of(stream));
    },
    .reduce_scatter = [](void* c, const void* from, void* to, size_t elements, int type, void* stream) -> int {
      return ncclReduceScatter(from, to, elements, ncclDataType_t(type), ncclSum, communicator_of(c),
                               stream_of(stream));
    },
    .all_gather = [](void* c, const void* from, void* to, size_t bytes, void* stream) -> int {
      return ncclAllGather(from, to, bytes, ncclUint8, communicator_of(c), stream_of(stream));
    },
    .broadcast = broadcast,
    .send_receive = send_receive,
    .state = [](void* c, int* code) -> int {
      ncclResult_t now = ncclSuccess;
      const ncclResult_t asked = ncclCommGetAsyncError(communicator_of(c), &now);
      *code = now;
      return asked;
    },
    .finalize = [](void* c) -> int { return ncclCommFinalize(communicator_of(c)); },
    .destroy = [](void* c) -> int { return ncclCommDestroy(communicator_of(c)); },
    .abort = [](void* c) -> int { return ncclCommAbort(communicator_of(c)); },
};

}  // namespace

extern "C" const NcclLibrary* agon_nccl() { return &kLibrary; }

#pragma once
#include <cstddef>

namespace agon {

/// NCCL as the program sees it: plain functions, so that neither NCCL's header nor CUDA's is needed here, and a test
/// can stand in for the library. Communicators are NCCL's (non-blocking), streams CUDA's, both as void*. Functions
/// return NCCL's codes. One thread at a time may use a communicator.
struct NcclLibrary {
  enum Code {
    success = 0,
    unhandled_cuda_error = 1,
    system_error = 2,
    internal_error = 3,
    invalid_argument = 4,
    invalid_usage = 5,
    remote_error = 6,
    in_progress = 7
  };
  enum Type { i32 = 2, f32 = 7, f64 = 8, bf16 = 9 };
  static constexpr size_t kIdBytes = 128;
  static constexpr int kLayout = 1;  ///< of this table, so that a module of another build is refused

  /// What goes to and comes from one rank; 0 bytes: nothing that way.
  struct Transfer {
    int rank;
    const void* send;
    size_t send_bytes;
    void* receive;
    size_t receive_bytes;
  };
  /// What one root gives to all. `from` is read there only.
  struct Gift {
    int root;
    const void* from;
    void* to;
    size_t bytes;
  };

  int layout;
  int built_for;                 // version of the header: 22809 is 2.28.9
  int (*version)(int* version);  // of the library that was found
  const char* (*code_text)(int code);
  const char* (*last_error)(void* communicator);  // what the library said last; null: of any communicator
  int (*make_id)(void* id);                       // kIdBytes
  int (*open)(void** communicator, int ranks, const void* id, int rank);
  int (*split)(void* communicator, int color, int key, void** part);
  int (*all_reduce)(void* communicator, const void* from, void* to, size_t elements, int type, void* stream);
  int (*reduce_scatter)(void* communicator, const void* from, void* to, size_t elements_each, int type, void* stream);
  int (*all_gather)(void* communicator, const void* from, void* to, size_t bytes_each, void* stream);
  int (*broadcast)(void* communicator, const Gift* gifts, int count, void* stream);
  int (*send_receive)(void* communicator, const Transfer* transfers, int count, void* stream);
  int (*state)(void* communicator, int* code);  // in_progress, success or why it failed
  int (*finalize)(void* communicator);
  int (*destroy)(void* communicator);
  int (*abort)(void* communicator);  // whatever it waits for ends; frees it
};

}  // namespace agon

/// The one function of the module agon_nccl.so.
extern "C" const agon::NcclLibrary* agon_nccl();

#pragma once
#include <cstdint>

namespace agon {

/// MPI as the program sees it: plain functions, so that MPI's header is not needed here. They return null, or what is
/// wrong in MPI's words, which are valid until the next call. One thread at a time may call them.
struct MpiLibrary {
  static constexpr int kLayout = 1;            ///< of this table, so that a module of another build is refused
  static constexpr int kTags = 1 << 22;        ///< of messages: below it; of notices: it
  static constexpr int kLongestNotice = 2000;  ///< bytes: what every way of MPI sends without waiting for its receiver
  using Request = uint64_t;                    ///< a message under way

  int layout;
  const char* (*version)();
  const char* (*start)(int* rank, int* size);
  const char* (*host)(char name[256]);
  const char* (*send)(const void* from, int bytes, int to, int tag, Request* request);
  const char* (*receive)(void* to, int bytes, int from, int tag, Request* request);
  const char* (*test)(Request* request, int* done);
  const char* (*cancel)(Request* request);                             // of a receive; it is to be tested as before
  const char* (*take_notice)(char text[kLongestNotice], int* length);  // -1: there is none
  const char* (*finish)();                                             // waits for all ranks to call it
};

}  // namespace agon

/// The one function of the module agon_mpi.so.
extern "C" const agon::MpiLibrary* agon_mpi();

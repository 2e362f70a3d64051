#include <mpi.h>

#include <cstring>

#include "distributed/mpi_library.h"

namespace {

using agon::MpiLibrary;
using Request = MpiLibrary::Request;

bool started_here = false;

const char* words(int code) {
  static char text[MPI_MAX_ERROR_STRING];
  if (code == MPI_SUCCESS) return nullptr;
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return "an error without a description";
  return text;
}

MPI_Request unpack(Request request) {
  static_assert(sizeof(MPI_Request) <= sizeof(Request));
  MPI_Request handle;
  std::memcpy(static_cast<void*>(&handle), &request, sizeof(MPI_Request));
  return handle;
}

const char* packed(int code, MPI_Request handle, Request* request) {
  *request = 0;
  std::memcpy(request, static_cast<const void*>(&handle), sizeof(MPI_Request));
  return words(code);
}

const char* version() {
  static char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return "MPI of an unknown version";
  if (char* const end = std::strpbrk(text, ",\n")) *end = 0;
  return text;
}

const char* start(int* rank, int* size) {
  int initialized = 0, finalized = 0, provided = 0, known = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (finalized) return "this process has ended its part of the job";
  if (!initialized) {
    if (const char* wrong = words(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided))) return wrong;
    started_here = true;
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int* most = nullptr;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, static_cast<void*>(&most), &known);
  if (!known || *most < MpiLibrary::kTags) return "its messages have too few tags";
  if (const char* wrong = words(MPI_Comm_rank(MPI_COMM_WORLD, rank))) return wrong;
  return words(MPI_Comm_size(MPI_COMM_WORLD, size));
}

const char* host(char name[256]) {
  static_assert(MPI_MAX_PROCESSOR_NAME <= 256);
  int length = 0;
  return words(MPI_Get_processor_name(name, &length));
}

const char* send(const void* from, int bytes, int to, int tag, Request* request) {
  MPI_Request handle = MPI_REQUEST_NULL;
  const int code = MPI_Isend(from, bytes, MPI_BYTE, to, tag, MPI_COMM_WORLD, &handle);
  return packed(code, handle, request);
}

const char* receive(void* to, int bytes, int from, int tag, Request* request) {
  MPI_Request handle = MPI_REQUEST_NULL;
  const int code = MPI_Irecv(to, bytes, MPI_BYTE, from, tag, MPI_COMM_WORLD, &handle);
  return packed(code, handle, request);
}

const char* test(Request* request, int* done) {
  MPI_Request handle = unpack(*request);
  const int code = MPI_Test(&handle, done, MPI_STATUS_IGNORE);
  return packed(code, handle, request);
}

const char* cancel(Request* request) {
  MPI_Request handle = unpack(*request);
  const int code = MPI_Cancel(&handle);
  return packed(code, handle, request);
}

const char* take_notice(char text[MpiLibrary::kLongestNotice], int* length) {
  int found = 0;
  MPI_Status status;
  *length = -1;
  if (const char* wrong = words(MPI_Iprobe(MPI_ANY_SOURCE, MpiLibrary::kTags, MPI_COMM_WORLD, &found, &status)))
    return wrong;
  if (!found) return nullptr;
  if (const char* wrong = words(MPI_Get_count(&status, MPI_BYTE, length))) return wrong;
  return words(MPI_Recv(text, MpiLibrary::kLongestNotice, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, MPI_COMM_WORLD,
                        MPI_STATUS_IGNORE));
}

const char* finish() { return started_here ? words(MPI_Finalize()) : nullptr; }

const MpiLibrary library = {MpiLibrary::kLayout, version, start, host, send, receive, test, cancel,
                            take_notice,         finish};

}  // namespace

extern "C" const MpiLibrary* agon_mpi() { return &library; }

#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "core/storage.h"

namespace agon {

/// Places the blocks of one step in one slab: best fit among the holes, the open end only as a last resort, neighbours
/// merged when they come back. Placement depends on nothing but the sequence of requests, so a step that repeats the
/// sequence repeats its addresses, and a captured CUDA graph stays valid.
///
/// An arena of 0 bytes only measures: blocks come from the heap, and `extent` says how large a slab must be. A request
/// that does not fit a slab also takes a heap block, counted in `spilled`; the simulated placement goes on, so `extent`
/// is the size that would have sufficed. An arena belongs to one thread (rank) and must outlive the tensors made in it.
class Arena {
 public:
  explicit Arena(size_t bytes = 0, Device device = {});
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  std::shared_ptr<std::byte> allocate(size_t bytes);

  Device device() const { return device_; }
  size_t bytes() const { return bytes_; }    ///< size of the slab; 0 when only measuring
  size_t live() const { return live_; }      ///< bytes out now; 0 between steps, or something leaked
  size_t peak() const { return peak_; }      ///< the most bytes out at once
  size_t extent() const { return extent_; }  ///< what the slab has to hold, holes included
  size_t asked() const { return asked_; }    ///< the sum of all requests: what it would take without reuse
  size_t spilled() const {
    return spilled_;
  }  ///< the sum of the requests that took heap blocks although there is a slab
  /// Starts the figures anew (peak and extent from what is live now).
  void reset_figures();

  /// One line per part of the program (profile.h) that held memory when `peak` was reached, largest first.
  std::string peak_report() const;

  /// Makes an arena the source of new tensors on this thread until the end of the scope.
  class Scope {
   public:
    explicit Scope(Arena& arena);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena* previous_;
  };

  /// New tensors on this thread have blocks of their own until the end of the scope: for what outlives a step.
  class Outside {
   public:
    Outside();
    ~Outside();
    Outside(const Outside&) = delete;
    Outside& operator=(const Outside&) = delete;

   private:
    Arena* previous_;
  };

 private:
  size_t place(size_t n);
  void release(size_t at, size_t n, const char* part);
  std::string refused(const Error& e, size_t at, size_t n, const char* part);

  Device device_;
  std::shared_ptr<std::byte> slab_;
  std::map<size_t, size_t> holes_;  // offset -> size, all below end_
  std::map<std::string_view, size_t> live_of_part_, peak_of_part_;
  size_t bytes_, end_ = 0, live_ = 0, peak_ = 0, extent_ = 0, asked_ = 0, spilled_ = 0;
};

/// Memory for a new tensor: from the arena of the innermost Scope on this thread when it is of `device`, else a block
/// of its own.
std::shared_ptr<std::byte> allocate(Device device, size_t bytes);

}  // namespace agon

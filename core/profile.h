#pragma once
#include <map>
#include <string>

namespace agon {

/// The part of the program that runs on this thread ("attention", "experts", ...). Memory and time are booked to the
/// innermost part, and the tape books a backward pass to the part that recorded it. Names are string literals.
class Part {
 public:
  explicit Part(const char* name);
  ~Part();
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;

  static const char* current();  ///< "" outside every part

 private:
  const char* previous_;
};

/// Seconds spent in each part by this thread since start_timing(), nested parts subtracted from their surroundings.
void start_timing();
std::map<std::string, double> stop_timing();

}  // namespace agon

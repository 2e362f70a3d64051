#pragma once
#include <atomic>
#include <iostream>
#include <sstream>

namespace agon::testing {

/// Takes what goes to std::cerr while it lives; one thread at a time may write.
class Said : public std::stringbuf {
 public:
  Said() : before_(std::cerr.rdbuf(this)) {}
  ~Said() override { std::cerr.rdbuf(before_); }
  std::atomic<bool> something = false;

 private:
  std::streamsize xsputn(const char* s, std::streamsize n) override {
    const std::streamsize done = std::stringbuf::xsputn(s, n);
    something = true;
    return done;
  }
  std::streambuf* before_;
};

}  // namespace agon::testing

#include "distributed/mpi.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "core/error.h"

namespace agon {

namespace {

using Clock = std::chrono::steady_clock;
using Request = MpiLibrary::Request;

constexpr const char* kFile = "agon_mpi.so";
constexpr const char* kInstall = "apt-get install libopenmpi-dev openmpi-bin";
constexpr std::chrono::milliseconds kToGiveUp{300}, kToHear{200};

class MpiLink final : public Link {
 public:
  MpiLink(const MpiLibrary& mpi, size_t piece) : mpi_(mpi), piece_(piece) {
    // Writing to a rank that is gone has to be an error of MPI, not the end of this one.
    signal(SIGPIPE, SIG_IGN);
    if (const char* wrong = mpi_.start(&rank_, &size_)) throw Error(text("MPI does not start: ", wrong));
    char name[256] = {};
    if (const char* wrong = mpi_.host(name)) throw Error(text("MPI does not tell this host's name: ", wrong));
    host_ = name;
  }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string host() const override { return host_; }

  std::unique_ptr<Message> send(int to, int tag, std::span<const std::byte> bytes) override {
    auto message = std::make_unique<Pieces>(*this, to, false);
    for (size_t at = 0; at < bytes.size(); at += piece_) {
      const auto part = bytes.subspan(at, std::min(piece_, bytes.size() - at));
      message->add([&](Request* r) { return mpi_.send(part.data(), int(part.size()), to, tag, r); });
    }
    return message;
  }
  std::unique_ptr<Message> receive(int from, int tag, std::span<std::byte> bytes) override {
    auto message = std::make_unique<Pieces>(*this, from, true);
    for (size_t at = 0; at < bytes.size(); at += piece_) {
      const auto part = bytes.subspan(at, std::min(piece_, bytes.size() - at));
      message->add([&](Request* r) { return mpi_.receive(part.data(), int(part.size()), from, tag, r); });
    }
    return message;
  }

  std::unique_ptr<Message> tell(int to, const std::string& notice) override {
    failed_ = true;
    auto message = std::make_unique<Pieces>(*this, to, false);
    message->held = notice.substr(0, MpiLibrary::kLongestNotice);
    const std::string& told = message->held;
    message->add([&](Request* r) { return mpi_.send(told.data(), int(told.size()), to, MpiLibrary::kTags, r); });
    return message;
  }
  std::optional<std::string> heard() override {
    char notice[MpiLibrary::kLongestNotice];
    int length = 0;
    if (const char* wrong = mpi_.take_notice(notice, &length)) throw Error(text("MPI, looking for notices: ", wrong));
    if (length < 0) return {};
    failed_ = true;
    return std::string(notice, size_t(length));
  }

  void end(bool orderly) override {
    if (!orderly) {
      // A rank whose peer has gone is held up inside Open MPI over TCP: let all hear the reason first.
      if (size_ > 1) std::this_thread::sleep_for(kToHear);
      return;
    }
    if (const char* wrong = mpi_.finish()) throw Error(text("MPI does not end: ", wrong));
  }

 private:
  /// A message in one piece or several, each a request.
  class Pieces final : public Message {
   public:
    Pieces(MpiLink& link, int peer, bool comes) : link_(link), peer_(peer), comes_(comes) {}
    ~Pieces() override {
      if (!requests_.empty()) give_up();
    }
    template <class Begin>
    void add(Begin&& begin) {
      Request request = 0;
      verify(begin(&request));
      requests_.push_back(request);
    }
    bool done() override {
      int done = 1;
      while (!requests_.empty()) {
        verify(link_.mpi_.test(&requests_.back(), &done));
        if (!done) return false;
        requests_.pop_back();
      }
      return true;
    }
    std::string held;  // a notice

   private:
    void verify(const char* wrong) const {
      if (wrong) throw Error(text("MPI, ", comes_ ? "receiving from" : "sending to", " rank ", peer_, ": ", wrong));
    }
    /// The memory is about to go, and MPI may only go on using it where it goes on at all: not once the job has failed.
    void give_up() {
      if (link_.failed_) return;
      const Clock::time_point start = Clock::now();
      try {
        if (comes_)
          for (Request& request : requests_) verify(link_.mpi_.cancel(&request));
        while (!done() && Clock::now() - start < kToGiveUp) sched_yield();
      } catch (const Error&) { requests_.clear(); }  // MPI holds them no longer
    }

    MpiLink& link_;
    const int peer_;
    const bool comes_;
    std::vector<Request> requests_;
  };

  const MpiLibrary& mpi_;
  const size_t piece_;
  int rank_ = 0, size_ = 1;
  std::string host_;
  bool failed_ = false;  // the job: this rank has told or heard why
};

}  // namespace

const MpiLibrary& open_mpi(const std::vector<std::string>& folders) {
  const Module module = open_module(kFile, "agon_mpi", folders, true);
  require(module.exists, "MPI is not in this build (", module.path, "): ", kInstall, ", then configure again");
  require(module.function, "MPI cannot be loaded (", module.why, "): ", kInstall);
  const MpiLibrary& library = *reinterpret_cast<decltype(&agon_mpi)>(module.function)();
  require(library.layout == MpiLibrary::kLayout, module.path, " is of another build of agon (layout ", library.layout,
          ", expected ", MpiLibrary::kLayout, "): build or install both together");
  return library;
}

std::string mpi_here() {
  try {
    const MpiLibrary& library = open_mpi();
    return text(library.version(), " (", open_module(kFile, "agon_mpi", module_folders(), true).path, ')');
  } catch (const UserError& e) { return text("none: ", e.what()); }
}

std::unique_ptr<Link> make_mpi_link(const MpiLibrary& mpi, size_t piece) {
  return std::make_unique<MpiLink>(mpi, piece);
}

}  // namespace agon

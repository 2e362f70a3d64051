#include "distributed/message_call.h"

#include <doctest/doctest.h>

#include "tests/support/ranks.h"

using namespace agon;
using namespace agon::testing;

namespace {

/// Two ranks in one thread, moved by hand.
struct Pair {
  std::shared_ptr<PostOffice> office = std::make_shared<PostOffice>(2);
  ThreadLink links[2] = {{office, 0}, {office, 1}};
  std::shared_ptr<MessageGroup> groups[2] = {make_group(0), make_group(1)};

  static std::shared_ptr<MessageGroup> make_group(size_t me) {
    return std::make_shared<MessageGroup>(MessageGroup{.id = 3, .ranks = {0, 1}, .me = me});
  }
  std::unique_ptr<MessageCall> call(size_t rank, const Call& what) {
    auto made = std::make_unique<MessageCall>(groups[rank], what, 0);
    made->send_headers(links[rank], 2);
    return made;
  }
};

const Call kBarrier = {.operation = Collective::barrier};

}  // namespace

TEST_CASE("message_call: is over when all ranks have come, and says who has not") {
  Pair pair;
  const auto first = pair.call(0, kBarrier);
  first->advance();
  CHECK(!first->over());
  CHECK(!first->all_have_come());
  CHECK(first->awaited() == std::vector<size_t>{1});
  const auto second = pair.call(1, kBarrier);
  CHECK(second->advance());
  CHECK(second->over());
  CHECK(first->advance());
  CHECK(first->over());
  CHECK(first->number() == 1);
  CHECK(pair.call(0, kBarrier)->number() == 2);
}

TEST_CASE("message_call: takes its first step when all agree, each other one when all messages are done") {
  Pair pair;
  const std::vector<std::byte> sent(2 * ThreadLink::kShort, std::byte(7));
  std::vector<std::byte> got(sent.size());
  std::string steps;
  const auto first = pair.call(0, kBarrier), second = pair.call(1, kBarrier);
  first->send(pair.links[0], 1, sent, 1);
  first->then([&] { steps += 'a'; });
  first->then([&] { steps += 'b'; });
  second->then([&] { second->receive(pair.links[1], 0, got, 1); });
  first->advance();
  CHECK(steps == "a");  // the message has not been taken
  CHECK(first->awaited() == std::vector<size_t>{1});
  CHECK(first->all_have_come());
  second->advance();
  second->advance();
  CHECK(second->over());
  CHECK(got == sent);
  first->advance();
  CHECK(steps == "ab");
  CHECK(first->over());
  CHECK(first->traffic().sent == int64_t(sent.size()));
  CHECK(second->traffic().received == int64_t(sent.size()));
}

TEST_CASE("message_call: empty messages are not sent") {
  Pair pair;
  const auto first = pair.call(0, kBarrier), second = pair.call(1, kBarrier);
  first->send(pair.links[0], 1, {}, 1);
  second->receive(pair.links[1], 0, {}, 1);
  first->advance();
  second->advance();
  CHECK(first->over());
  CHECK(second->over());
}

TEST_CASE("message_call: ranks that disagree are told so, before anything is changed") {
  Pair pair;
  const Tensor t({2}, DType::f32);
  const auto first = pair.call(0, kBarrier), second = pair.call(1, {.operation = Collective::all_reduce, .tensor = &t});
  first->then([] { FAIL("a step was taken"); });
  CHECK(message_of([&] { first->advance(); }) == "the ranks disagree; rank 0: barrier; rank 1: all_reduce of f32 [2]");
  CHECK(message_of([&] { second->advance(); }) == "the ranks disagree; rank 0: barrier; rank 1: all_reduce of f32 [2]");
}

TEST_CASE("message_call: those that are under way at once do not mix") {
  Pair pair;
  const int32_t sent[] = {1, 2};
  int32_t got[] = {0, 0};
  const auto of = [](auto& n) { return std::span(&n, 1); };
  const auto a0 = pair.call(0, kBarrier), b0 = pair.call(0, kBarrier), a1 = pair.call(1, kBarrier),
             b1 = pair.call(1, kBarrier);
  b0->send(pair.links[0], 1, std::as_bytes(of(sent[1])), 1);
  a0->send(pair.links[0], 1, std::as_bytes(of(sent[0])), 1);
  a1->receive(pair.links[1], 0, std::as_writable_bytes(of(got[0])), 1);
  b1->receive(pair.links[1], 0, std::as_writable_bytes(of(got[1])), 1);
  for (const auto* call : {&b1, &a1, &b0, &a0}) (*call)->advance();
  CHECK(got[0] == 1);
  CHECK(got[1] == 2);
}

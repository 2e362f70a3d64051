#include "distributed/store_frame.h"

#include <doctest/doctest.h>

#include <vector>

#include "tests/support/message.h"

using namespace agon;
using agon::test::check_contains;
using agon::test::user_error;

namespace {

template <class Kind = BadFrame>
std::string bad(std::string arrived) {
  try {
    take_frame(arrived);
  } catch (const Kind& e) { return e.what(); }
  FAIL_CHECK("expected a BadFrame");
  return {};
}

}  // namespace

TEST_CASE("store frame: messages come out as they went in, one by one, from any pieces") {
  const std::string nothing, bytes("\0\n\xff", 3);
  std::string sent;
  for (const auto& [key, value] : {std::pair(nothing, nothing), std::pair(std::string("key"), bytes)})
    sent += encode({Say::publish, key, value});
  for (size_t cut = 0; cut <= sent.size(); ++cut) {
    std::string arrived = sent.substr(0, cut);
    std::vector<Frame> frames;
    while (const auto frame = take_frame(arrived)) frames.push_back(*frame);
    arrived += sent.substr(cut);
    while (const auto frame = take_frame(arrived)) frames.push_back(*frame);
    REQUIRE(frames.size() == 2);
    CHECK(frames[0].key.empty());
    CHECK(frames[1].kind == Say::publish);
    CHECK(frames[1].key == "key");
    CHECK(frames[1].value == bytes);
    CHECK(arrived.empty());
  }
}

TEST_CASE("store frame: what is no message is seen at its first bytes") {
  CHECK(bad("G") == "it begins with 'G'");
  check_contains(bad("GET / HTTP/1.1\r\nHost: somebody.example"), {"'GET / HTTP/1.1..Host: somebody.e...'"});
  CHECK(bad("agoN") == "it begins with 'agoN'");
  std::string kind = encode({Say::hello, "", ""});
  kind[8] = 99;
  CHECK(bad(kind) == "it sent a message of the unknown kind 99");
}

TEST_CASE("store frame: another version is told apart") {
  std::string other = encode({Say::hello, "", ""});
  other[4] = 7;
  CHECK(bad<OtherVersion>(other.substr(0, 8)) == "it speaks version 7 of the protocol; expected 1");
}

TEST_CASE("store frame: sizes above the cap are refused on both sides") {
  const std::string largest(kStoreCap - 1, 'x');
  std::string arrived = encode({Say::publish, "k", largest});
  CHECK(take_frame(arrived)->value == largest);
  check_contains(user_error([&] { encode({Say::publish, "kk", largest}); }), {"'kk'", "65537 bytes", "65536"});
  std::string huge = encode({Say::hello, "", ""});
  for (int byte = 12; byte < 20; ++byte) huge[byte] = '\xff';
  CHECK(bad(huge) == "it announced 8589934590 bytes; expected at most 65536");
}

TEST_CASE("store frame: a greeting has rank and size") {
  CHECK(read_hello(hello_value(300, 70000)).rank == 300);
  CHECK(read_hello(hello_value(300, 70000)).size == 70000);
  CHECK_THROWS_AS(read_hello("1234567"), BadFrame);
}

TEST_CASE("store frame: secrets are equal or not") {
  CHECK(same_secret("secret", "secret"));
  for (const char* other : {"", "secre", "secrets", "Secret", "secreT", "secretsecret"})
    CHECK(!same_secret(other, "secret"));
  CHECK(!same_secret("x", ""));
}

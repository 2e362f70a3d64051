#include <algorithm>
#include <array>

#include "apps/domains.h"

// Problems worked digit by digit from the right, as in school. A heading "A + B"; a line per column, which is true as
// it stands ("7+5+1=13 carry 1": the last 1 is the carry of the line above); then "A + B = R", whose digits the lines
// gave.

namespace agon {

namespace {

constexpr std::array<int64_t, 8> kPower{1, 10, 100, 1000, 10'000, 100'000, 1'000'000, 10'000'000};

int64_t number(Random& random, int digits) {
  const int64_t low = digits == 1 ? 2 : kPower[size_t(digits - 1)];
  return low + int64_t(random.below(uint64_t(kPower[size_t(digits)] - low)));
}

int64_t digit(int64_t n, int i) { return n / kPower[size_t(i)] % 10; }

int digits_of(int64_t n) { return int(std::to_string(n).size()); }

std::string problem(int64_t a, char sign, int64_t b) {
  return std::to_string(a) + " " + sign + " " + std::to_string(b);
}

std::string addition(int64_t a, int64_t b) {
  std::string out;
  int64_t carry = 0;
  for (int i = 0; i < std::max(digits_of(a), digits_of(b)); ++i) {
    const int64_t sum = digit(a, i) + digit(b, i) + carry;
    out += std::to_string(digit(a, i)) + "+" + std::to_string(digit(b, i)) + (carry ? "+1" : "") + "=" +
           std::to_string(sum);
    carry = sum / 10;
    out += carry ? " carry 1\n" : "\n";
  }
  return out;
}

std::string subtraction(int64_t a, int64_t b) {
  std::string out;
  int64_t borrow = 0;
  for (int i = 0; i < digits_of(a); ++i) {
    const bool short_of = digit(a, i) < digit(b, i) + borrow;
    const int64_t top = digit(a, i) + (short_of ? 10 : 0);
    out += std::to_string(top) + "-" + std::to_string(digit(b, i)) + (borrow ? "-1" : "") + "=" +
           std::to_string(top - digit(b, i) - borrow);
    borrow = short_of;
    out += short_of ? " borrow 1\n" : "\n";
  }
  return out;
}

std::string multiplication(int64_t a, int64_t b) {
  std::string out;
  int64_t carry = 0;
  for (int i = 0; i < digits_of(a); ++i) {
    const int64_t product = digit(a, i) * b + carry;
    out += std::to_string(digit(a, i)) + "*" + std::to_string(b) + (carry ? "+" + std::to_string(carry) : "") + "=" +
           std::to_string(product);
    carry = product / 10;
    out += carry ? " carry " + std::to_string(carry) + "\n" : "\n";
  }
  return out;
}

std::string long_multiplication(int64_t a, int64_t b) {
  std::string out;
  const int64_t ones = a * (b % 10), tens = a * (b / 10) * 10;
  if (b % 10) out += std::to_string(a) + "*" + std::to_string(b % 10) + "=" + std::to_string(ones) + "\n";
  out += std::to_string(a) + "*" + std::to_string(b / 10 * 10) + "=" + std::to_string(tens) + "\n";
  if (b % 10) out += std::to_string(ones) + "+" + std::to_string(tens) + "=" + std::to_string(ones + tens) + "\n";
  return out;
}

std::string one_problem(Random& random) {
  const int digits = 2 + int(random.below(4));
  int64_t a = number(random, digits), b = number(random, std::max(1, digits - int(random.below(2))));
  switch (random.below(4)) {
    case 0:
      return problem(a, '+', b) + "\n" + addition(a, b) + problem(a, '+', b) + " = " + std::to_string(a + b) + "\n";
    case 1:
      if (a < b) std::swap(a, b);
      return problem(a, '-', b) + "\n" + subtraction(a, b) + problem(a, '-', b) + " = " + std::to_string(a - b) + "\n";
    case 2:
      b = number(random, 1);
      return problem(a, '*', b) + "\n" + multiplication(a, b) + problem(a, '*', b) + " = " + std::to_string(a * b) +
             "\n";
    default:
      a = number(random, 2);
      b = number(random, 2);
      return problem(a, '*', b) + "\n" + long_multiplication(a, b) + problem(a, '*', b) + " = " +
             std::to_string(a * b) + "\n";
  }
}

}  // namespace

std::string arithmetic_document(Random& random) {
  const size_t length = 220 + size_t(random.below(420));
  std::string out;
  while (out.size() < length) out += one_problem(random);
  return out;
}

}  // namespace agon

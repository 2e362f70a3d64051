#include "core/shape.h"

#include <doctest/doctest.h>

using namespace agon;

TEST_CASE("shape: size, rows and extents from both ends") {
  const Shape s{2, 3, 4};
  CHECK(s.rank() == 3);
  CHECK(s.size() == 24);
  CHECK(s.rows() == 6);
  CHECK(s[0] == 2);
  CHECK(s[-1] == 4);
  CHECK(s[-3] == 2);
  CHECK(s.with(-1, 7) == Shape{2, 3, 7});
  CHECK(s == Shape{2, 3, 4});
  CHECK(text(s, Shape{}, Shape{5}) == "[2, 3, 4][][5]");
}

TEST_CASE("shape: rank 0 is one element, an extent of 0 none") {
  CHECK(Shape{}.size() == 1);
  CHECK(Shape{}.rows() == 1);
  CHECK(Shape{0}.size() == 0);
  CHECK(Shape{0}.rows() == 1);
  CHECK(Shape{0, 5}.rows() == 0);
  CHECK(Shape{5, 0}.rows() == 5);
  CHECK(Shape{6} != Shape{2, 3});
  CHECK(Shape{0} != Shape{});
}

TEST_CASE("shape: refuses what is none") {
  CHECK_THROWS_AS((Shape{1, 2, 3, 4, 5}), Error);
  CHECK_THROWS_AS((Shape{2, -1}), Error);
  CHECK_THROWS_AS((Shape{2}.with(0, -1)), Error);
  CHECK_THROWS_AS((Shape{2, 3}[2]), Error);
  CHECK_THROWS_AS((Shape{2, 3}[-3]), Error);
  CHECK_THROWS_AS((Shape{}[0]), Error);
  CHECK_THROWS_AS((Shape{int64_t(1) << 40, int64_t(1) << 40}.size()), Error);
}

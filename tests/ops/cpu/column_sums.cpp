#include "ops/cpu/column_sums.h"

#include <doctest/doctest.h>

using namespace agon;

TEST_CASE("column_sums: any number of rows, written over or added, with a factor") {
  for (const int64_t rows : {0, 1, 255, 256, 257, 1000}) {
    const auto add_row = [](int64_t n, double* sums) {
      sums[0] += double(n);
      sums[1] += 1;
    };
    double out[2] = {7, 9};
    cpu::column_sums<double>(out, true, rows, 2, add_row, 2.0);
    CHECK(out[0] == 7 + double(rows * (rows - 1)));
    CHECK(out[1] == 9 + 2 * double(rows));
    cpu::column_sums<double>(out, false, rows, 2, add_row);
    CHECK(out[0] == double(rows * (rows - 1)) / 2);
    CHECK(out[1] == double(rows));
  }
}

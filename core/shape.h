#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>

#include "core/error.h"

namespace agon {

/// Up to four extents, inline. A negative index counts from the end.
class Shape {
 public:
  Shape() = default;  // rank 0: a single element
  Shape(std::initializer_list<int64_t> dims) : rank_(int(dims.size())) {
    check(dims.size() <= dims_.size(), "a shape has at most 4 extents, got ", dims.size());
    int i = 0;
    for (int64_t d : dims) {
      check(d >= 0, "a shape cannot have the extent ", d);
      dims_[size_t(i++)] = d;
    }
  }
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[index(i)]; }
  int64_t size() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i)
      check(!__builtin_mul_overflow(n, dims_[size_t(i)], &n), "the shape ", *this,
            " has more elements than can be counted");
    return n;
  }
  /// This shape with extent i replaced.
  Shape with(int i, int64_t n) const {
    check(n >= 0, "a shape cannot have the extent ", n);
    Shape s = *this;
    s.dims_[index(i)] = n;
    return s;
  }
  /// The product of all extents but the last: the number of rows.
  int64_t rows() const { return rank_ == 0 ? 1 : with(-1, 1).size(); }
  bool operator==(const Shape&) const = default;
  friend std::ostream& operator<<(std::ostream& os, const Shape& s) {
    os << '[';
    for (int i = 0; i < s.rank_; ++i) os << (i ? ", " : "") << s[i];
    return os << ']';
  }

 private:
  size_t index(int i) const {
    const int j = i < 0 ? i + rank_ : i;
    check(j >= 0 && j < rank_, "extent ", i, " of a shape of rank ", rank_);
    return size_t(j);
  }
  std::array<int64_t, 4> dims_{};
  int rank_ = 0;
};

}  // namespace agon

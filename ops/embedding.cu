#include "ops/embedding.h"

#include <limits>

#include "core/cuda/scan.cuh"

namespace agon {

namespace {

constexpr int kThreads = 256;

/// A token outside of the vocabulary, which nobody can throw here, gives NaN.
template <class T>
__global__ void look_up(T* y, const T* table, const int32_t* token, int64_t vocabulary, int64_t width, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= size) return;
  const int64_t v = token[i / width];
  y[i] = v >= 0 && v < vocabulary ? table[v * width + i % width] : T(std::numeric_limits<float>::quiet_NaN());
}

__global__ void count(int32_t* counts, const int32_t* token, int64_t vocabulary, int64_t n) {
  const int64_t t = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (t < n && token[t] >= 0 && token[t] < vocabulary) atomicAdd(&counts[token[t]], 1);
}

__global__ void scan(int32_t* first, const int32_t* counts, int64_t vocabulary) {
  cuda::scan_counts(first, counts, vocabulary);
}

/// The positions of token v in some order, from first[v] on. Leaves 0 in counts.
__global__ void gather(int32_t* found, int32_t* counts, const int32_t* first, const int32_t* token, int64_t vocabulary,
                       int64_t n) {
  const int64_t t = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (t >= n || token[t] < 0 || token[t] >= vocabulary) return;
  found[first[token[t]] + atomicAdd(&counts[token[t]], -1) - 1] = int32_t(t);
}

/// The positions of each token in ascending order: a position's place is the number of smaller ones.
__global__ void sort(int32_t* order, const int32_t* found, const int32_t* first, const int32_t* token,
                     int64_t vocabulary) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= first[vocabulary]) return;
  const int32_t t = found[i], begin = first[token[t]], end = first[token[t] + 1];
  int32_t place = begin;
  for (int32_t j = begin; j < end; ++j) place += found[j] < t;
  order[place] = t;
}

/// A block: a row of the gradient and kThreads of its columns. As on the CPU, in ascending order of positions.
template <class G, class T>
__global__ void sum_rows(G* dtable, bool add, const T* dy, const int32_t* order, const int32_t* first, int64_t width) {
  const int64_t v = blockIdx.x, d = int64_t(blockIdx.y) * kThreads + threadIdx.x;
  const int32_t begin = first[v], end = first[v + 1];
  if (d >= width || (add && begin == end)) return;
  G& to = dtable[v * width + d];
  float sum = add ? float(to) : 0;
  for (int32_t i = begin; i < end; ++i) sum += float(dy[order[i] * width + d]);
  to = G(sum);
}

}  // namespace

void Embedding::Forward::cuda(const Tensor& y, const Tensor& table, const Tensor& token) {
  cuda::visit(table.dtype(), [&]<class T>() {
    cuda::launch({"embedding", table, token}, look_up<T>, cuda::blocks(y.size(), kThreads), kThreads, 0,
                 cuda::pointer<T>(y), cuda::pointer<const T>(table), cuda::pointer<const int32_t>(token),
                 table.shape(0), table.shape(1), y.size());
  });
}

void Embedding::Backward::cuda(const Tensor& dtable, bool add, const Tensor& dy, const Tensor& token) {
  const int64_t vocabulary = dtable.shape(0), width = dtable.shape(1), n = token.size();
  const cuda::Label label("embedding backward", dtable, token);
  const auto integers = [&](int64_t size) { return Tensor({size}, DType::i32, dy.device()); };
  const Tensor counts = integers(vocabulary), first = integers(vocabulary + 1), found = integers(n),
               order = integers(n);
  const auto ids = cuda::pointer<const int32_t>(token);
  const auto at = [](const Tensor& t) { return cuda::pointer<int32_t>(t); };
  const unsigned grid = cuda::blocks(n, kThreads);
  cuda::launch(label, count, grid, kThreads, 0, at(counts.zero()), ids, vocabulary, n);
  cuda::launch(label, scan, 1, cuda::kScanThreads, 0, at(first), at(counts), vocabulary);
  cuda::launch(label, gather, grid, kThreads, 0, at(found), at(counts), at(first), ids, vocabulary, n);
  cuda::launch(label, sort, grid, kThreads, 0, at(order), at(found), at(first), ids, vocabulary);
  cuda::visit(dtable.dtype(), [&]<class G>() {
    cuda::visit(dy.dtype(), [&]<class T>() {
      cuda::launch(label, sum_rows<G, T>, dim3(unsigned(vocabulary), cuda::blocks(width, kThreads)), kThreads, 0,
                   cuda::pointer<G>(dtable), add, cuda::pointer<const T>(dy), at(order), at(first), width);
    });
  });
}

}  // namespace agon

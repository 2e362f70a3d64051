#include <omp.h>

#include <array>
#include <dnnl.hpp>
#include <map>

#include "apps/gemm_library.h"
#include "core/error.h"

namespace {

const char* version() {
  static const std::string described = [] {
    const dnnl_version_t& v = *dnnl_version();
    return agon::text(v.major, '.', v.minor, '.', v.patch, ", instruction sets up to ",
                      int(dnnl::get_effective_cpu_isa()));
  }();
  return described.c_str();
}

void f32(int64_t m, int64_t n, int64_t k, const float* x, const float* w, float* y) {
  const dnnl_status_t status = dnnl_sgemm('N', 'T', m, n, k, 1, x, k, w, k, 0, y, n);
  agon::check(status == dnnl_success, "dnnl_sgemm answers ", int(status));
}

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

/// oneDNN 3 makes a primitive's description at once, oneDNN 2 by way of an operation's.
template <class M>
M matmul_of(const dnnl::memory::desc& x, const dnnl::memory::desc& w, const dnnl::memory::desc& y) {
  if constexpr (requires { typename M::desc; })
    return M(typename M::primitive_desc(typename M::desc(x, w, y), engine()));
  else
    return M(typename M::primitive_desc(engine(), x, w, y));
}

struct Product {
  dnnl::memory x, w, y;
  dnnl::matmul matmul;
};

Product product_of(int64_t m, int64_t n, int64_t k) {
  using Tag = dnnl::memory::format_tag;
  const auto desc = [](int64_t rows, int64_t columns, Tag tag) {
    return dnnl::memory::desc({rows, columns}, dnnl::memory::data_type::bf16, tag);
  };
  const auto x = desc(m, k, Tag::ab), w = desc(k, n, Tag::ba), y = desc(m, n, Tag::ab);
  const auto place = [](const dnnl::memory::desc& d) { return dnnl::memory(d, engine(), nullptr); };
  return {place(x), place(w), place(y), matmul_of<dnnl::matmul>(x, w, y)};
}

void bf16(int64_t m, int64_t n, int64_t k, const uint16_t* x, const uint16_t* w, uint16_t* y) {
  static std::map<std::array<int64_t, 3>, Product> made;
  auto at = made.find({m, n, k});
  if (at == made.end()) at = made.emplace(std::array{m, n, k}, product_of(m, n, k)).first;
  Product& p = at->second;
  p.x.set_data_handle(const_cast<uint16_t*>(x));
  p.w.set_data_handle(const_cast<uint16_t*>(w));
  p.y.set_data_handle(y);
  static dnnl::stream stream(engine());
  p.matmul.execute(stream, {{DNNL_ARG_SRC, p.x}, {DNNL_ARG_WEIGHTS, p.w}, {DNNL_ARG_DST, p.y}});
  stream.wait();
}

constexpr agon::GemmLibrary kLibrary = {"onednn", version, omp_set_num_threads, f32, bf16};

}  // namespace

extern "C" const agon::GemmLibrary* agon_gemm_library() { return &kLibrary; }

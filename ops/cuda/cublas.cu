#include "ops/cuda/cublas.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <array>
#include <map>
#include <memory>

#include "core/cuda/launch.cuh"
#include "core/gpu.h"
#include "core/storage.h"
#include "ops/cuda/bias.cuh"

namespace agon::cuda {

namespace {

/// The functions of the library that are used.
struct Library {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtDestroy) destroy;
  decltype(&cublasLtGetStatusName) status_name;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;

  Library();
};

Library::Library() {
  void* const library = [] {
    if (void* const found = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL)) return found;
    return dlopen(AGON_CUBLAS_FOLDER "/libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);  // of the toolkit that compiled this
  }();
  const char* const why = library ? "" : dlerror();
  check(library,
        "matrix products on a GPU need cuBLAS of CUDA 13, and libcublasLt.so.13 was found neither by the dynamic "
        "loader nor in " AGON_CUBLAS_FOLDER " (",
        why, "); install it, or name its folder in LD_LIBRARY_PATH");
  const auto get = [&]<class F>(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(library, name));
    check(function, "libcublasLt.so.13 has no ", name);
  };
  get(create, "cublasLtCreate");
  get(destroy, "cublasLtDestroy");
  get(status_name, "cublasLtGetStatusName");
  get(matmul, "cublasLtMatmul");
  get(heuristic, "cublasLtMatmulAlgoGetHeuristic");
  get(desc_create, "cublasLtMatmulDescCreate");
  get(desc_destroy, "cublasLtMatmulDescDestroy");
  get(desc_set, "cublasLtMatmulDescSetAttribute");
  get(layout_create, "cublasLtMatrixLayoutCreate");
  get(layout_destroy, "cublasLtMatrixLayoutDestroy");
  get(preference_create, "cublasLtMatmulPreferenceCreate");
  get(preference_destroy, "cublasLtMatmulPreferenceDestroy");
  get(preference_set, "cublasLtMatmulPreferenceSetAttribute");
}

const Library& library() {
  static const Library loaded;
  return loaded;
}

/// One product, for the errors.
struct Call {
  const char* op;
  int64_t m, n, k;
  GemmOperand a, b;
  GemmOutput c;
  bool add;

  void check_status(cublasStatus_t status, const char* function) const {
    if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
      return;
    throw Error(text(op, ": ", function, ": ", library().status_name(status), "; the product of [", m, ", ", k, "] of ",
                     a.dtype, a.transposed ? ", transposed," : "", " and [", k, ", ", n, "] of ", b.dtype,
                     b.transposed ? ", transposed," : "", add ? " added to " : " into ", c.dtype, ", strides ",
                     a.stride, ", ", b.stride, ", ", c.stride));
  }
};

template <class T>
using Handle = std::unique_ptr<std::remove_pointer_t<T>, cublasStatus_t (*)(T)>;

/// What one shape of product needs, and how the library does it.
struct Plan {
  Handle<cublasLtMatmulDesc_t> product{nullptr, library().desc_destroy};
  Handle<cublasLtMatrixLayout_t> left{nullptr, library().layout_destroy}, right = {nullptr, library().layout_destroy},
                                                                          out = {nullptr, library().layout_destroy};
  cublasLtMatmulAlgo_t algorithm;
  size_t workspace = 0;
  bool found = false;
};

/// A thread's use of one device: the library's handle, memory for its products, and the plans made so far.
struct Context {
  Handle<cublasLtHandle_t> handle{nullptr, library().destroy};
  std::shared_ptr<std::byte> workspace;
  size_t workspace_bytes = 0;
  std::map<std::array<int64_t, 17>, Plan> plans;

  explicit Context(int device) {
    int major = 0;
    check_call(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    workspace_bytes = size_t(major >= 9 ? 32 : 4) << 20;  // what the library's manual recommends
    workspace = allocate_block({Device::cuda, device}, workspace_bytes);
    cublasLtHandle_t h = nullptr;
    const cublasStatus_t status = library().create(&h);
    check(status == CUBLAS_STATUS_SUCCESS, "cublasLtCreate: ", library().status_name(status));
    handle.reset(h);
  }
};

Context& context() {
  thread_local std::map<int, Context> of_device;
  int device = 0;
  check_call(cudaGetDevice(&device));
  return of_device.try_emplace(device, device).first->second;
}

cudaDataType_t type(const Call& call, DType dtype) {
  check(dtype == DType::f32 || dtype == DType::bf16, call.op, ": a GPU multiplies f32 and bf16, got ", dtype);
  return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// The largest power of two, up to 256, that divides the address: algorithms differ in what they ask of it.
uint32_t alignment(const void* p) {
  const auto at = reinterpret_cast<uintptr_t>(p) | 256;
  return uint32_t(at & (~at + 1));
}

/// The library counts along columns, so each of our matrices is its transpose there, and cᵀ = bᵀ aᵀ: b is its left
/// operand.
Plan make_plan(const Call& call, Context& context, const void* bias, bool tf32) {
  const Library& lt = library();
  Plan plan;
  const auto must = [&](cublasStatus_t status, const char* function) { call.check_status(status, function); };
  cublasLtMatmulDesc_t product = nullptr;
  must(lt.desc_create(&product, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
       "cublasLtMatmulDescCreate");
  plan.product.reset(product);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    must(lt.desc_set(product, attribute, &value, sizeof value), "cublasLtMatmulDescSetAttribute");
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, call.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, call.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, int32_t(type(call, call.c.dtype)));
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);  // that of this call; multiply sets each one's
  }
  const auto layout = [&](auto& to, DType dtype, int64_t rows, int64_t columns, int64_t stride) {
    cublasLtMatrixLayout_t made = nullptr;
    must(lt.layout_create(&made, type(call, dtype), uint64_t(rows), uint64_t(columns), stride),
         "cublasLtMatrixLayoutCreate");
    to.reset(made);
  };
  const auto operand_layout = [&](auto& to, const GemmOperand& o, int64_t rows, int64_t columns) {
    layout(to, o.dtype, o.transposed ? rows : columns, o.transposed ? columns : rows, o.stride);
  };
  operand_layout(plan.left, call.b, call.k, call.n);
  operand_layout(plan.right, call.a, call.m, call.k);
  layout(plan.out, call.c.dtype, call.n, call.m, call.c.stride);

  cublasLtMatmulPreference_t raw = nullptr;
  must(lt.preference_create(&raw), "cublasLtMatmulPreferenceCreate");
  const Handle<cublasLtMatmulPreference_t> preference(raw, lt.preference_destroy);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    must(lt.preference_set(raw, attribute, &value, sizeof value), "cublasLtMatmulPreferenceSetAttribute");
  };
  // Parts of a split depth are added in f32, not in the output's dtype.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t(context.workspace_bytes));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(call.b.data));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(call.a.data));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(call.c.data));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(call.c.data));
  cublasLtMatmulHeuristicResult_t result{};
  int results = 0;
  const cublasStatus_t status = lt.heuristic(context.handle.get(), product, plan.left.get(), plan.right.get(),
                                             plan.out.get(), plan.out.get(), raw, 1, &result, &results);
  plan.found = status == CUBLAS_STATUS_SUCCESS && results > 0;
  if (!plan.found && !bias)  // with a bias: the caller tries without
    must(status == CUBLAS_STATUS_SUCCESS ? CUBLAS_STATUS_NOT_SUPPORTED : status, "cublasLtMatmulAlgoGetHeuristic");
  plan.algorithm = result.algo;
  plan.workspace = result.workspaceSize;
  return plan;
}

const Plan& plan_for(const Call& call, Context& context, const void* bias) {
  constexpr size_t kMost = 4096;  // sizes that change with every step must not fill the memory
  const bool rounds = tf32() && call.a.dtype == DType::f32;
  const std::array<int64_t, 17> key = {call.m,
                                       call.n,
                                       call.k,
                                       int64_t(call.a.dtype),
                                       call.a.stride,
                                       call.a.transposed,
                                       call.b.stride,
                                       call.b.transposed,
                                       int64_t(call.b.dtype),
                                       call.c.stride,
                                       int64_t(call.c.dtype),
                                       call.add,
                                       bias != nullptr,
                                       rounds,
                                       alignment(call.a.data),
                                       alignment(call.b.data),
                                       alignment(call.c.data)};
  if (const auto known = context.plans.find(key); known != context.plans.end()) return known->second;
  if (context.plans.size() >= kMost) context.plans.clear();
  return context.plans.emplace(key, make_plan(call, context, bias, rounds)).first->second;
}

/// c = 0 unless added to: the library does not multiply matrices without depth.
template <class T>
__global__ void clear(T* c, int64_t stride, int64_t n, int64_t size) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < size) c[i / n * stride + i % n] = T(0.0f);
}

void multiply(const Call& call, const void* bias) {
  Context& here = context();
  const bool aligned = alignment(bias) >= 16;
  const Plan* plan = &plan_for(call, here, aligned ? bias : nullptr);
  bool fused = bias && aligned;
  if (!plan->found) {
    plan = &plan_for(call, here, nullptr);
    fused = false;
  }
  if (fused)
    call.check_status(library().desc_set(plan->product.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
                      "cublasLtMatmulDescSetAttribute");
  const float one = 1, keep = call.add ? 1 : 0;
  call.check_status(
      library().matmul(here.handle.get(), plan->product.get(), &one, call.b.data, plan->left.get(), call.a.data,
                       plan->right.get(), &keep, call.c.data, plan->out.get(), call.c.data, plan->out.get(),
                       &plan->algorithm, here.workspace.get(), plan->workspace, stream()),
      "cublasLtMatmul");
  check_launch(call.op, {}, {}, 0);
  if (bias && !fused) add_bias(call.op, call.m, call.n, call.c, {bias, call.c.dtype});
}

}  // namespace

void gemm(const char* op, int64_t m, int64_t n, int64_t k, GemmOperand a, GemmOperand b, GemmOutput c, bool add,
          const void* bias) {
  const Call call{op, m, n, k, a, b, c, add};
  check(a.dtype == b.dtype, op, ": a product of ", a.dtype, " and ", b.dtype);
  check(!add || c.dtype == DType::f32, op, ": adding to ", c.dtype);
  if (m == 0 || n == 0) return;
  if (k > 0) return multiply(call, bias);
  visit(c.dtype, [&]<class T>() {
    if (!add) launch(op, clear<T>, blocks(m * n, 256), 256, 0, static_cast<T*>(c.data), c.stride, n, m * n);
  });
  if (bias) add_bias(op, m, n, c, {bias, c.dtype});
}

}  // namespace agon::cuda

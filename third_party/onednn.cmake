# Optional: beside our products in `agon bench ops --compare`. Debian: libdnnl-dev, whose own CMake package fails where
# OpenCL is not installed.
find_path(AGON_ONEDNN_INCLUDE dnnl.hpp)
find_library(AGON_ONEDNN_LIBRARY dnnl)
find_package(OpenMP QUIET)  # whose threads it uses
if(AGON_ONEDNN_INCLUDE AND AGON_ONEDNN_LIBRARY AND OpenMP_CXX_FOUND)
  agon_gemm_library(onednn)
  target_include_directories(agon_onednn SYSTEM PRIVATE ${AGON_ONEDNN_INCLUDE})
  target_link_libraries(agon_onednn PRIVATE ${AGON_ONEDNN_LIBRARY} OpenMP::OpenMP_CXX)
endif()

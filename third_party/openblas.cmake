# Optional: beside our products in `agon bench ops --compare`. Debian: libopenblas-dev.
find_package(OpenBLAS QUIET)
if(OpenBLAS_FOUND)
  agon_gemm_library(openblas)
  target_include_directories(agon_openblas SYSTEM PRIVATE ${OpenBLAS_INCLUDE_DIRS})
  target_link_libraries(agon_openblas PRIVATE ${OpenBLAS_LIBRARIES})
endif()

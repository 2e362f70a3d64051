# AGON_CUDA = AUTO: use nvcc 13 if it is found, and say what was decided. ON: fail without it. SHIM: no CUDA, but its kernels
# compiled by the C++ compiler against tests/shim, a GPU played by the CPU.
set(AGON_HAS_CUDA OFF)
if(AGON_CUDA STREQUAL "SHIM")
  message(STATUS "agon: the CPU plays a GPU, for tests")
elseif(NOT AGON_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 90-virtual)
    endif()
    enable_language(CUDA)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know nvcc's flag for C++20
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
      list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    find_package(CUDAToolkit 13 REQUIRED)
    set(AGON_HAS_CUDA ON)
    # Opened by name when it is needed, and, where the loader does not find it, in the toolkit that compiled us.
    set_source_files_properties(ops/cuda/cublas.cu PROPERTIES COMPILE_DEFINITIONS AGON_CUBLAS_FOLDER="${CUDAToolkit_LIBRARY_DIR}")
  elseif(AGON_CUDA STREQUAL "ON")
    message(FATAL_ERROR "AGON_CUDA=ON, but no nvcc was found: put it on PATH or set CUDACXX")
  endif()
endif()
message(STATUS "agon: CUDA ${AGON_HAS_CUDA}")

# agon_cuda_options(TARGET): what every target of ours is compiled and linked with for CUDA.
function(agon_cuda_options target)
  if(AGON_HAS_CUDA)
    target_compile_definitions(${target} INTERFACE $<BUILD_INTERFACE:AGON_WITH_CUDA>)
    target_compile_options(${target} INTERFACE $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;-lineinfo;-Xcompiler=-Wall>>)
    # The runtime is linked statically and finds the driver itself: the program starts on machines without one.
    target_link_libraries(${target} INTERFACE $<BUILD_INTERFACE:CUDA::cudart_static> $<BUILD_INTERFACE:${CMAKE_DL_LIBS}>)
  elseif(AGON_CUDA STREQUAL "SHIM")
    target_compile_definitions(${target} INTERFACE AGON_WITH_CUDA AGON_SHIM)
    target_include_directories(${target} SYSTEM INTERFACE ${PROJECT_SOURCE_DIR}/tests/shim)
  endif()
endfunction()

# agon_kernels(VARIABLE FOLDER): the .cu files of a folder, as this build compiles them.
function(agon_kernels variable folder)
  set(kernels)
  if(AGON_HAS_CUDA OR AGON_CUDA STREQUAL "SHIM")
    file(GLOB_RECURSE kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cu)
  endif()
  if(AGON_CUDA STREQUAL "SHIM")
    list(FILTER kernels EXCLUDE REGEX "/ops/cuda/cublas\\.cu$")  # tests/shim/cublas.cpp
    set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX SKIP_PRECOMPILE_HEADERS ON
      COMPILE_OPTIONS -Wno-unknown-pragmas)  # unroll
    if(folder STREQUAL "ops")
      list(APPEND kernels ${PROJECT_SOURCE_DIR}/tests/shim/cublas.cpp)
    endif()
    if(folder STREQUAL "core")
      list(APPEND kernels ${PROJECT_SOURCE_DIR}/tests/shim/shim.cpp)
    endif()
  endif()
  set(${variable} ${kernels} PARENT_SCOPE)
endfunction()

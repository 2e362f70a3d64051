# `cmake --install` gives the program, libagon.so with its headers, and a CMake package: find_package(agon) makes the
# target agon::agon. The library is everything but apps/: what the program adds is reading files and printing.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(library_folders core autograd ops distributed moe)
# Shared, and made of the folders' objects: nothing that registers itself is dropped on the way to a user's program.
file(CONFIGURE OUTPUT agon_library.cpp CONTENT "")
add_library(agon_library SHARED ${CMAKE_CURRENT_BINARY_DIR}/agon_library.cpp)
foreach(folder ${library_folders})
  target_link_libraries(agon_library PRIVATE agon_${folder})
endforeach()
target_include_directories(agon_library INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/agon>)
target_compile_features(agon_library INTERFACE cxx_std_20)
set_target_properties(agon_library PROPERTIES
  OUTPUT_NAME agon EXPORT_NAME agon VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})

install(TARGETS agon_library EXPORT agon LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS agon RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
# Modules lie where distributed/module.cpp looks for them.
foreach(module agon_mpi agon_nccl)
  if(TARGET ${module})
    install(TARGETS ${module} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/agon)
  endif()
endforeach()
foreach(folder ${library_folders})
  install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/agon FILES_MATCHING PATTERN "*.h")
endforeach()

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/agon)
install(EXPORT agon FILE agon-targets.cmake NAMESPACE agon:: DESTINATION ${package_folder})
configure_package_config_file(cmake/agon-config.cmake.in agon-config.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(agon-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/agon-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/agon-config-version.cmake
  DESTINATION ${package_folder})

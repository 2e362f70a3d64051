# Finds a package, or fails naming the Debian package that has it.
function(agon_find name debian)
  find_package(${name} QUIET GLOBAL ${ARGN})
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "agon needs ${name}: apt-get install ${debian}")
  endif()
endfunction()

#pragma once
#include <string>
#include <vector>

namespace agon {

/// A library that the program opens by name when it is wanted, so that it starts without: what needs an engine that not
/// every machine has (agon_mpi.so, agon_nccl.so).
struct Module {
  void* function = nullptr;  ///< the one it exports; null where the module could not be opened
  bool exists = false;       ///< its file was found
  std::string path;          ///< of the file found; else where it was looked for, in words
  std::string why;           ///< it could not be opened: what the loader says
};

/// Opens `file` from the first of the folders that has it and looks up `function`. It stays open. With `global` its
/// symbols, and those of what it needs, can be found by libraries opened later (Open MPI's own parts want that).
Module open_module(const std::string& file, const std::string& function, const std::vector<std::string>& folders,
                   bool global = false);

/// Where modules lie: beside the program, beside the library that this code is part of, and where `cmake --install`
/// puts them.
std::vector<std::string> module_folders();

}  // namespace agon

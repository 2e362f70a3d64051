#pragma once
#include <sys/types.h>

#include <chrono>
#include <string>
#include <vector>

namespace agon {

/// Children of this process's children become its own when their parents end, from now on.
void adopt_orphans();

/// All processes below this one, from /proc.
std::vector<pid_t> descendants();

/// Kills all processes below this one and waits until they are gone. False when some are not after `patience`: the
/// kernel does not let go of them.
bool end_descendants(std::chrono::milliseconds patience = std::chrono::seconds(10));

/// "SIGSEGV (Segmentation fault)"
std::string signal_name(int signal);

/// The path of this program.
std::string this_program();

/// Replaces this process with a program; `command` is its path or name and its arguments. Returns only to say why not.
std::string replace_with(const std::vector<std::string>& command);

/// What a program writes to its standard output, and nothing else happens with; "" when it cannot be run or fails.
std::string output_of(const std::vector<std::string>& command);

}  // namespace agon

# Sourced by the scripts beside it: where the repository is, what it needs, how a preset is built.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { if [ -t 1 ]; then printf '\033[1m%s\033[0m\n' "$*"; else echo "$*"; fi; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

# The compilers' and tools' packages, and those that third_party/*.cmake name.
packages() {
  echo g++ cmake ninja-build ccache
  sed -n 's/^agon_find([A-Za-z0-9_]* \([a-z0-9.+-]*\).*/\1/p' third_party/*.cmake
}

# set_up [PACKAGE...]: installs what packages() and the arguments name and is missing; asks no network when nothing is.
set_up() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "Not a Debian system. Needed: g++ 12 or newer, CMake 3.25, Ninja, and what Debian calls $(packages | xargs)."
    return
  fi
  local missing=() package as_root=()
  for package in $(packages) "$@"; do
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      fail "packages are missing, and this is neither root nor a user with passwordless sudo. Run"
      echo "  apt-get update && apt-get install -y --no-install-recommends ${missing[*]}" >&2
      exit 2
    fi
    as_root=(sudo)
  fi
  say "Installing ${missing[*]}"
  local quiet=(-qq -o Dpkg::Use-Pty=0)
  "${as_root[@]}" apt-get "${quiet[@]}" update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${quiet[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# build PRESET [TARGET...]: configures when that was not done, or was done differently, and builds.
build() {
  local preset=$1 folder=build/$1
  shift
  local configure=(cmake --preset "$preset") output stamp=$folder/configured-as
  if command -v ccache >/dev/null; then
    # A hit in another clone needs paths relative to the clone.
    export CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
    export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime  # for precompiled headers
    configure+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    export CMAKE_CUDA_COMPILER_LAUNCHER=ccache
  fi
  if [ "$(cat "$stamp" 2>/dev/null)" != "${configure[*]}" ] || [ CMakePresets.json -nt "$stamp" ]; then
    say "Configuring $preset"
    output=$("${configure[@]}" 2>&1) || { printf '%s\n' "$output" >&2; return 1; }
    echo "${configure[*]}" >"$stamp"
  fi
  say "Building $preset"
  cmake --build "$folder" --parallel "$(nproc)" ${1:+--target "$@"}
}

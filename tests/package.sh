#!/usr/bin/env bash
# Installs agon into an empty prefix and builds the example there against the installed package alone.
set -euo pipefail
if [ -n "$AGON_SANITIZE" ]; then
  echo "skipped: a sanitized library is not for installing"
  exit 77
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cmake --install "$AGON_BINARY_DIR" --prefix "$folder/prefix" >/dev/null
cp -r "$AGON_SOURCE_DIR/examples" "$folder/examples"  # out of the tree: its headers are not to be found
cmake -S "$folder/examples" -B "$folder/build" -G Ninja -DCMAKE_PREFIX_PATH="$folder/prefix" >/dev/null
cmake --build "$folder/build"
"$folder/build/one_layer" | tee "$folder/output"
grep -q '^gradient of experts.gate_up' "$folder/output"
[ ! -x "$folder/prefix/bin/agon" ] || "$folder/prefix/bin/agon" help >/dev/null
if [ -x "$folder/prefix/bin/agon" ] && [ -e "$AGON_BINARY_DIR/agon_mpi.so" ]; then
  "$folder/prefix/bin/agon" doctor | grep "^MPI .*$folder/prefix/lib.*/agon/agon_mpi.so"
fi
if [ -x "$folder/prefix/bin/agon" ] && [ -e "$AGON_BINARY_DIR/agon_nccl.so" ]; then
  "$folder/prefix/bin/agon" doctor | grep "^NCCL .*$folder/prefix/lib.*/agon/agon_nccl.so"
fi

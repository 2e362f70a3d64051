#!/usr/bin/env bash
# One training on ranks that are processes of Open MPI is the training on one: expert x data = 2x1, 1x2, 4x1, 2x2, 1x4.
set -euo pipefail
. "$AGON_SOURCE_DIR/tests/support/for_mpi.sh"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
timeout -k 5 600 mpirun --bind-to none -n 4 "$AGON_BINARY_DIR/tests/test_apps" --no-colors=1 \
  -tc='ranks: 20 steps*,ranks: micro-batches*,ranks: a sharded*,ranks: what a step*' >"$output" 2>&1 ||
  { cat "$output"; exit 1; }
[ "$(grep -c 'Status: SUCCESS' "$output")" = 4 ] || { echo "FAILED: not all ranks reported success"; cat "$output"; exit 1; }

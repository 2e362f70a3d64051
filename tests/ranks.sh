#!/usr/bin/env bash
# One training on ranks that are processes of Open MPI is the training on one: expert x data = 2x1, 1x2, 4x1, 2x2, 1x4.
set -euo pipefail
if [ -n "$AGON_SANITIZE" ]; then
  echo "skipped: what it waits for is timed for the plain build"
  exit 77
fi
if ! command -v mpirun >/dev/null || [ ! -e "$AGON_BINARY_DIR/agon_mpi.so" ]; then
  echo "skipped: no mpirun, or MPI was not found when this was built (libopenmpi-dev openmpi-bin)"
  exit 77
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
output=$(mktemp)
trap 'rm -f "$output"' EXIT
timeout -k 5 600 mpirun --bind-to none -n 4 "$AGON_BINARY_DIR/tests/test_apps" --no-colors=1 \
  -tc='ranks: 20 steps*,ranks: micro-batches*,ranks: a sharded*,ranks: what a step*' >"$output" 2>&1 ||
  { cat "$output"; exit 1; }
[ "$(grep -c 'Status: SUCCESS' "$output")" = 4 ] || { echo "FAILED: not all ranks reported success"; cat "$output"; exit 1; }

#!/usr/bin/env bash
# Several ranks on one GPU by NCCL: every collective, ranks that disagree, a rank that stays away. Without a GPU only that the
# ranks of the test find each other, which is not what it is for: it counts as skipped.
set -euo pipefail
rank=$AGON_BINARY_DIR/tests/nccl_rank
"$rank" 3 collectives cpu
"$rank" 2 disagrees cpu
if ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
  echo "skipped: no GPU here"
  exit 77
fi
if [ ! -e "$AGON_BINARY_DIR/agon_nccl.so" ]; then
  echo "skipped: NCCL is not in this build"
  exit 77
fi
"$rank" 1 collectives
"$rank" 2 collectives
"$rank" 4 collectives
"$rank" 2 disagrees
"$rank" 2 late

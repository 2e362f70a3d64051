#!/usr/bin/env bash
# Ranks that are processes of Open MPI: the collectives give what they give on threads, and a job of which one rank goes
# wrong ends soon, with a message.
set -euo pipefail
. "$AGON_SOURCE_DIR/tests/support/for_mpi.sh"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
fail() {
  echo "FAILED: $*"
  cat "$output"
  exit 1
}
ranks() { timeout -k 5 120 mpirun --bind-to none -n "$@" >"$output" 2>&1; }

for n in 2 3 4; do
  echo "collectives on $n ranks"
  ranks "$n" "$AGON_BINARY_DIR/tests/test_distributed" --no-colors=1 \
    -tc='collectives:*,communicator:*,exchange: there*,exchange: work*' || fail "with exit code $?"
  [ "$(grep -c 'Status: SUCCESS' "$output")" = "$n" ] || fail "not all ranks reported success"
  ranks "$n" "$AGON_BINARY_DIR/tests/mpi_rank" pieces || fail "with messages in pieces"
done

echo "a rank of two that MPI takes for the only one"
code=0
SLURM_STEP_ID=0 SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_LOCALID=1 timeout 60 "$AGON_BINARY_DIR/tests/mpi_rank" alone >"$output" 2>&1 || code=$?
[ "$code" = 2 ] || fail "with exit code $code, expected 2"
grep -q "srun says that there are 2 ranks, MPI that there are 1" "$output" || fail "without saying so"

# goes_wrong WHAT SECONDS EXIT-CODES TEXT...: what rank 1 of three does, and what is to come of it.
goes_wrong() {
  local what=$1 seconds=$2 codes=$3 code=0 start text
  shift 3
  start=$(date +%s%N)
  ranks 3 "$AGON_BINARY_DIR/tests/mpi_rank" "$what" || code=$?
  local took=$((($(date +%s%N) - start) / 1000000))
  echo "$what: exit code $code after $took ms"
  [[ " $codes " == *" $code "* ]] || fail "$what: exit code $code, expected one of $codes"
  [ "$took" -le $((seconds * 1000)) ] || fail "$what: took $took ms, expected $seconds s at most"
  for text in "$@"; do grep -qE "$text" "$output" || fail "$what: nobody said '$text'"; done
}
host=$(hostname)
here="step 7.*call 2 of ranks 0-2, all_reduce"
# The deadline is 2 s, and a rank that has ended is answered by mpirun within another 1.3; the rest is for starting.
waited="all_reduce on rank [02] \($host\) in $here: waited 20.. ms for rank 1 \($host\)$"
goes_wrong late 7 1 "$waited"
goes_wrong stopped 7 1 "$waited"
goes_wrong stopped-later 7 1 "all_to_all on rank [02] \($host\) in step 7 failed: call 5 of ranks 0-2, all_to_all: waited"
goes_wrong disagrees 5 1 "ranks 0, 2: all_reduce of f32 \[3000, 20\]; rank 1: barrier"
goes_wrong throws 5 "1 2" "^mpi_rank: no such file" "failed: rank 1 \($host\): no such file"
# Nobody speaks for a rank that is gone: the others say where they were.
asked="^agon: asked to stop, but rank [02] \($host\) in step 7, in call 2 of ranks 0-2, all_reduce, has waited .* for rank 1 "
goes_wrong killed 5 137 "$asked"
goes_wrong crashed 5 139 "$asked"
goes_wrong exit-0 5 "1 139" "$asked"  # 139: mpirun 4.1.4 itself may crash at its end
goes_wrong exit-3 5 3 "$asked"

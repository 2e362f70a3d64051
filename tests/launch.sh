#!/usr/bin/env bash
# `agon launch` with mpirun, from outside: exit codes, messages, signals, restarts, and that no process, shared memory or
# temporary file is left however a job ends. Ranks of one process train; more of them run what needs no communicator.
set -euo pipefail
. "$AGON_SOURCE_DIR/tests/support/for_mpi.sh"
. "$AGON_SOURCE_DIR/tests/support/left_behind.sh"
folder=$(mktemp -d)
trap 'kill_left_behind; rm -rf "$folder"' EXIT
cat > "$folder/config.toml" <<'TOML'
threads = 1
[data]
builtin_bytes = 60000
[model]
layers = 1
width = 32
heads = 2
sequence = 32
[moe]
experts = 4
expert_width = 16
[train]
steps = 1000000
batch = 4
eval_every = 0
eval_tokens = 256
checkpoint_every = 20
[log]
every = 1000000
TOML
ok=0
fail() {
  echo "FAILED: $*"
  tail -n 20 "$folder/out"
  exit 1
}
# launch ARGS...: starts it in the background as $launcher; `ended CODE WHAT` waits for it.
launch() {
  marked "$AGON" launch "$@" > "$folder/out" 2>&1 < /dev/null &
  launcher=$!
}
ended() {
  local code=0
  wait "$launcher" 2> /dev/null || code=$?
  [ "$code" = "$1" ] || fail "$2: exit code $code, expected $1"
  nothing_left > "$folder/left" || fail "$2: $(cat "$folder/left")"
  ok=$((ok + 1))
}
says() { grep -q -- "$1" "$folder/out" || fail "it does not say '$1'"; }
ranks() { pgrep -f -- "^$AGON train $folder/config.toml" || true; }
# Waits until the training has begun, with RANKS processes, and has written COUNT lines of its log.
training() {
  for _ in $(seq 1200); do
    [ -s "$folder/run/log.jsonl" ] && [ "$(wc -l < "$folder/run/log.jsonl")" -ge "$1" ] && break
    kill -0 "$launcher" 2> /dev/null || fail "the job ended before it trained"
    sleep 0.05
  done
}
train() { launch "${@:1:$#}" train "$folder/config.toml" train.out="$folder/run"; }

launch -n 3 keys log
ended 0 "three ranks that end well"
[ "$(grep -c '^\[log\]' "$folder/out")" = 3 ] || fail "not the output of three ranks"

launch -n 2 nonsense
ended 2 "a user's mistake"
says 'rank [01] of 2 (.*) ended with exit code 2'

launch -n 2 keys log --no-such-option
ended 2 "words that launch does not know are the verb's"

for signal in INT TERM; do
  rm -rf "$folder/run"
  train -n 1
  training 3
  kill -$signal $launcher
  [ $signal = INT ] && code=130 || code=143
  ended $code "SIG$signal"
  says "stopped by a signal"
  [ -s "$folder/run/latest" ] || fail "SIG$signal left no checkpoint"
done

# What a terminal sends goes to all of the foreground: the job is not in it, and gets its signal from the launcher alone.
rm -rf "$folder/run"
set -m
train -n 1
set +m
training 3
kill -INT -- -$launcher
ended 130 "an interrupt from the terminal"
says "stopped by a signal"

rm -rf "$folder/run"
train -n 1
training 3
kill -STOP $(ranks)
kill -INT $launcher
sleep 0.2
kill -INT $launcher
ended 130 "a second interrupt, while the rank hangs"

rm -rf "$folder/run"
train -n 1 --grace 0.5
training 3
kill -STOP $(ranks)
kill -TERM $launcher
ended 1 "a rank that does not end in time"
says 'rank 0 of 1 did not end in time and was killed'

for signal in KILL SEGV; do
  rm -rf "$folder/run"
  train -n 1
  training 3
  kill -$signal $(ranks)
  ended 1 "a rank killed by SIG$signal"
  says "rank 0 of 1 (.*) was killed by SIG$signal"
done

rm -rf "$folder/run"
train -n 1
training 3
pkill -KILL -f -- "-n 1 .*keep-rank .*$folder/config.toml" || fail "no mpirun"
ended 1 "mpirun killed"
says 'what starts the ranks was killed by SIGKILL'

rm -rf "$folder/run"
train -n 1
training 3
kill -KILL $launcher
ended 137 "the launcher killed"

rm -rf "$folder/run"
train -n 1 --max-restarts 3
saved="" rank=""
# Waits for a checkpoint after the last one and for a rank that is not the last one.
moves_on() {
  for _ in $(seq 1200); do
    [ ! -s "$folder/run/latest" ] || [ "$(cat "$folder/run/latest")" = "$saved" ] || [ -z "$(ranks)" ] ||
      [ "$(ranks)" = "$rank" ] || break
    kill -0 "$launcher" 2> /dev/null || fail "the job ended before it moved on"
    sleep 0.02
  done
  saved=$(cat "$folder/run/latest") rank=$(ranks)
}
for _ in 1 2; do
  moves_on
  kill -KILL $rank
done
moves_on
kill -TERM $launcher
ended 143 "restarts"
says 'restart 1 of 3, from checkpoints/step-'
says 'restart 2 of 3, from checkpoints/step-'
says 'continuing .* after step'

rm -rf "$folder/run"
launch -n 1 --max-restarts 5 train "$folder/config.toml" train.out="$folder/run" train.checkpoint_every=0
training 3
first=$(ranks)
kill -KILL $first
while [ -z "$(ranks)" ] || [ "$(ranks)" = "$first" ]; do sleep 0.02; done
kill -KILL $(ranks)
ended 1 "restarts in vain"
says 'restart 1 of 5, from the beginning'
says 'not restarted: there is no checkpoint after 2 tries'

echo "$ok jobs ended as they should and left nothing behind"

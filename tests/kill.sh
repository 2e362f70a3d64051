#!/usr/bin/env bash
# A run of 20 steps, killed at random moments and resumed until it is done, has the same bits as one never stopped: the
# checkpoint's tensors and the log. KILLS is how many kill -9 to survive (default 5). SIGTERM saves and exits with 143.
set -euo pipefail
kills=${KILLS:-5}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/config.toml" <<'TOML'
threads = 1
[data]
builtin_bytes = 60000
[model]
layers = 2
width = 32
heads = 2
sequence = 32
dropout = 0.1
[moe]
experts = 4
expert_width = 16
[moe.router]
bias_rate = 0.001
[train]
steps = 20
batch = 4
eval_every = 7
eval_tokens = 256
checkpoint_every = 2
[log]
format = "none"
TOML
train() { "$AGON" train "$folder/config.toml" train.out="$folder/$1" "${@:2}" >> "$folder/out" 2>&1; }
same() {
  for file in model.safetensors optimizer.safetensors; do
    cmp "$folder/whole/checkpoints/step-20/$file" "$folder/$1/checkpoints/step-20/$file"
  done
  # All but the speed of a step must agree.
  for run in whole "$1"; do sed -E 's/"(tokens_per_s|share_of_peak)":[^,}]*//g' "$folder/$run/log.jsonl" > "$folder/$run.log"; done
  cmp "$folder/whole.log" "$folder/$1.log"
}

# How long a run takes, in milliseconds, so that kills fall anywhere in it.
start=$(date +%s%N)
train whole || { cat "$folder/out"; exit 1; }
length=$(( ($(date +%s%N) - start) / 1000000 ))

RANDOM=${SEED:-1}
killed=0 runs=0
while [ $killed -lt "$kills" ]; do
  runs=$((runs + 1))
  [ $runs -le $((kills * 4 + 20)) ] || { echo "only $killed of $kills kills hit a running program in $runs tries"; exit 1; }
  rm -rf "$folder/part"
  code=137
  while [ $code = 137 ]; do
    "$AGON" train "$folder/config.toml" train.out="$folder/part" --resume >> "$folder/out" 2>&1 &
    pid=$!
    if [ $killed -lt "$kills" ]; then
      wait_ms=$((RANDOM % (length + 1)))
      sleep "$(printf '%d.%03d' $((wait_ms / 1000)) $((wait_ms % 1000)))"
      kill -9 $pid 2>/dev/null && hit=1 || hit=0
    else
      hit=0
    fi
    code=0
    wait $pid 2>/dev/null || code=$?
    [ $code = 137 ] && killed=$((killed + hit))
    [ $code = 0 ] || [ $code = 137 ] || { echo "exit code $code"; tail -n 5 "$folder/out"; exit 1; }
  done
  same part
done
echo "$killed kills -9 in $runs runs of 20 steps: the same bits"

# SIGTERM: a checkpoint of the step it fell in, exit code 143, and the same bits after resuming.
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$folder/term"
  "$AGON" train "$folder/config.toml" train.out="$folder/term" train.checkpoint_every=0 train.eval_every=0 >> "$folder/out" 2>&1 &
  pid=$!
  while [ ! -s "$folder/term/log.jsonl" ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
  kill -TERM $pid 2>/dev/null || true
  code=0
  wait $pid || code=$?
  [ $code = 143 ] && break
done
[ $code = 143 ] || { echo "SIGTERM: exit code $code, expected 143"; exit 1; }
[ -s "$folder/term/latest" ] || { echo "SIGTERM left no checkpoint"; exit 1; }
train term --resume train.checkpoint_every=0 train.eval_every=0
for file in model.safetensors optimizer.safetensors; do
  cmp "$folder/whole/checkpoints/step-20/$file" "$folder/term/checkpoints/step-20/$file"
done
echo "SIGTERM at $(cat "$folder/term/latest"): saved, exit code 143, the same bits after resuming"

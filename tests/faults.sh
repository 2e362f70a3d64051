#!/usr/bin/env bash
# Jobs of which one rank goes wrong, under `agon launch` with mpirun: at each kind of collective call, in the middle of a
# training, and where ranks meet for the first time. Each ends as promised: soon, with a message that says where, with
# nothing left behind; and a training goes on to the same bits.
set -euo pipefail
. "$AGON_SOURCE_DIR/tests/support/for_mpi.sh"
faulty=$AGON_BINARY_DIR/tests/faulty
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; kill_left_behind; rm -rf "$folder"' EXIT
. "$AGON_SOURCE_DIR/tests/support/left_behind.sh"
out=$folder/out
cases=0
fail() {
  echo "FAILED: $*"
  tail -n 30 "$out"
  exit 1
}
says() { grep -qE -- "$1" "$out" || fail "$what: nobody says '$1'"; }
# job WHAT CODES SECONDS COMMAND...: runs it; it has to end within that time, with one of these codes.
job() {
  what=$1
  local codes=$2 seconds=$3 code=0 start took
  start=$(date +%s%N)
  (marked timeout -k 1 60 "${@:4}") > "$out" 2>&1 < /dev/null || code=$?
  took=$((($(date +%s%N) - start) / 1000000))
  [[ " $codes " == *" $code "* ]] || fail "$what: exit code $code after $took ms, expected $codes"
  echo "$what: $took ms"
  [ $took -le $((seconds * 1000)) ] || fail "$what: took $took ms, expected $seconds s at most"
  nothing_left > "$out.left" || fail "$what: $(cat "$out.left")"
  cases=$((cases + 1))
}
host=$(hostname)

# A dead rank ends the job within 5 s, a hung one at the deadline, here of 3 s; the rest is for starting.
job "calls of every kind" 0 60 "$faulty" launch -n 3 collectives
says '^done$'
# at OPERATION: every fault there.
at() {
  local operation=$1 how limit
  out=$folder/$1 mark=$mark-$1
  for how in kill segv throw exit0 exit3 stop; do
    limit=7
    [ $how = stop ] && limit=9
    job "$how at $operation" 1 $limit env "FAULT=$how@1:$operation:3" DEADLINE=$([ $how = stop ] && echo 3 || echo 60) \
      "$faulty" launch -n 3 collectives
    case $how in
      kill) says "^agon: rank 1 of 3 \($host\) was killed by SIGKILL" ;;
      segv) says "^agon: rank 1 of 3 \($host\) was killed by SIGSEGV" ;;
      throw) says "^agon: rank [012] of 3 \($host\) ended with exit code 1" ;;
      exit0) says "^agon: rank 1 of 3 \($host\) ended early, with exit code 0" ;;
      exit3) says "^agon: rank 1 of 3 \($host\) ended with exit code 3" ;;
      stop) says "^agon: rank [02] of 3 \($host\) ended with exit code 1" ;;
    esac
    # Who waited says for whom, in which call and step.
    case $how in
      throw) says "$operation on rank [02] \($host\) in step [23] failed: .*rank 1 \($host\): (it has ended with an error|a fault that the test makes)" ;;
      stop) says "$operation on rank [02] \($host\) in step [23] failed: call [0-9]+ of ranks .*, $operation: waited 3... ms for rank 1 \($host\)" ;;
      *) says "asked to stop, but rank [02] \($host\) in step [23], in call [0-9]+ of ranks .*, $operation, has waited .* for rank 1 \($host\)" ;;
    esac
  done
}
started=0
for operation in all_to_all all_reduce broadcast all_gather reduce_scatter barrier split; do
  [ $started -lt 3 ] || wait -n || exit 1  # they wait most of the time
  at $operation &
  started=$((started + 1))
done
while [ $started -gt 0 ]; do
  wait -n || [ $? = 127 ] || exit 1
  started=$((started - 1))
done
cases=$((cases + 7 * 6))
echo "$cases jobs of collective calls"

cat > "$folder/config.toml" << 'TOML'
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
[parallel]
backend = "mpi"
expert = 2
deadline_s = 3
[train]
steps = 20
batch = 4
eval_every = 7
eval_tokens = 256
checkpoint_every = 2
[log]
format = "none"
TOML
# train RUN ARGS...: the words of a training.
train() { echo train "$folder/config.toml" train.out="$folder/$1" "${@:2}"; }
same() {
  local file each
  for file in "$folder"/whole/checkpoints/step-20/*.safetensors; do
    cmp "$file" "$folder/$1/checkpoints/step-20/${file##*/}" > "$out" 2>&1 || fail "$what: another ${file##*/} after resuming"
  done
  for each in whole "$1"; do  # all but times must agree
    sed -E 's/"(tokens_per_s|share_of_peak|comm_share|slowest)":[^,}]*,?//g' "$folder/$each/log.jsonl" > "$folder/$each.log"
  done
  cmp "$folder/whole.log" "$folder/$1.log" > "$out" 2>&1 || fail "$what: another log after resuming"
}

job "a training" 0 60 "$faulty" launch -n 2 $(train whole)
for fault in kill@1:all_reduce:40 segv@0:all_to_all:160 throw@1:all_gather:80 exit0@0:all_reduce:30 \
  exit3@1:all_to_all:200 stop@1:all_to_all:300; do
  rm -rf "$folder/part" "$folder/once"
  job "$fault in a training" 0 30 env "FAULT=$fault" FAULT_ONCE="$folder/once" \
    "$faulty" launch -n 2 --max-restarts 1 $(train part)
  [ -e "$folder/once" ] || fail "$what: it never struck"
  says "^agon: restart 1 of 1, from checkpoints/step-[0-9]+"
  same part
done

# One rank's disk is full: no checkpoint is made of what it could not write, and the last whole one is gone on from.
rm -rf "$folder/part" "$folder/once"
job "a full disk on one rank" "1 2" 30 env FAULT=full@1:all_reduce:40 FAULT_ONCE="$folder/once" \
  "$faulty" launch -n 2 $(train part)
says "optimizer-00002-of-00002.safetensors: write failed: File too large|model-00002-of-00002.safetensors: write failed"
[ -s "$folder/part/latest" ] || fail "$what: no checkpoint is left"
job "going on after a full disk" 0 30 "$faulty" launch -n 2 $(train part --resume)
same part

# From here on the job is disturbed from outside: `disturb` starts it as $launcher and waits for its fifth step.
rarely="train.checkpoint_every=0 train.eval_every=0"
disturb() {
  rm -rf "$folder/part"
  marked "$faulty" launch -n 2 $(train part train.steps=100000 $rarely) > "$out" 2>&1 < /dev/null &
  launcher=$!
  for _ in $(seq 600); do
    [ ! -e "$folder/part/log.jsonl" ] || [ "$(grep -c . "$folder/part/log.jsonl")" -lt 5 ] || break
    sleep 0.05
  done
}
ended() {
  what=$1
  local code=0
  wait $launcher 2> /dev/null || code=$?
  [ $code = "$2" ] || fail "$what: exit code $code, expected $2"
  nothing_left > "$out.left" || fail "$what: $(cat "$out.left")"
  cases=$((cases + 1))
}
for signal in INT TERM; do
  disturb
  kill -$signal $launcher
  [ $signal = INT ] && code=130 || code=143
  ended "SIG$signal" $code
  says "stopped by a signal after step [0-9]+"
  step=$(sed 's/.*step-//' "$folder/part/latest")
  # What was saved is what a training of so many steps has, but for its schedule's end.
  job "going on after SIG$signal" 0 30 "$faulty" launch -n 2 $(train part --resume $rarely train.steps=$((step + 2)))
  says "continuing .* after step $step"
done
disturb
kill -KILL $launcher
ended "the launcher killed" 137
disturb
kill -STOP $(pgrep -f -- "^$faulty $(train part)" | tail -n 1)
ended "a rank stopped from outside" 1
says "waited 3... ms for (data from or to )?rank [01] \($host\)"

# Where ranks that know an address and a secret meet, whoever else comes.
port() { echo $((20000 + RANDOM % 10000)); }
# ranks SIZE PORT TOKEN RANK...: starts these; await CODE... their ends, in the same order.
ranks() {
  local size=$1 port=$2 token=$3 rank
  pids=()
  for rank in "${@:4}"; do
    marked env RANK=$rank WORLD_SIZE=$size LOCAL_RANK=$rank LOCAL_WORLD_SIZE=$size MASTER_ADDR=127.0.0.1 \
      MASTER_PORT=$port AGON_TOKEN=$token DEADLINE=${deadline:-20} timeout 60 "$faulty" rendezvous >> "$out" 2>&1 &
    pids+=($!)
  done
}
await() {
  local expected code i=0
  for expected in "$@"; do
    code=0
    wait "${pids[$i]}" || code=$?
    [ $code = "$expected" ] || fail "$what: exit code $code, expected $expected"
    i=$((i + 1))
  done
  nothing_left > "$out.left" || fail "$what: $(cat "$out.left")"
  cases=$((cases + 1))
}
# The port is open once it takes a connection, which is itself one that says nothing.
send() {
  for _ in $(seq 200); do
    { exec 9<> "/dev/tcp/127.0.0.1/$1"; } 2> /dev/null && break
    sleep 0.05
  done
  (trap '' PIPE && printf "$2" >&9) 2> /dev/null || true  # it may have been turned away already
  exec 9>&-
}
: > "$out"
what="garbage at the rendezvous" port=$(port)
ranks 3 "$port" secret 0 1
present=("${pids[@]}")
send "$port" 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'
send "$port" '\xff\xfe\x00\x01garbage'
send "$port" 'agon\x01\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\x7f\xff\xff\xff\x7f'
send "$port" 'agon'
ranks 3 "$port" secret 2
pids=("${present[@]}" "${pids[@]}")
await 0 0 0
says "turned away 127.0.0.1:[0-9]+: it begins with 'GET / HTTP/1.1"
says "it announced 4294967294 bytes; expected at most 65536"
for rank in 0 1 2; do says "^rank $rank has 'from rank 0'"; done

: > "$out"
what="a wrong token" port=$(port)
ranks 2 "$port" secret 0
present=("${pids[@]}")
ranks 2 "$port" guess 1
wrong=("${pids[@]}")
wait "${wrong[0]}" && fail "$what: accepted" || [ $? = 2 ] || fail "$what: not the user's mistake"
ranks 2 "$port" secret 1
pids=("${present[@]}" "${pids[@]}")
await 0 0
says "the token is not rank 0's; expected the same AGON_TOKEN on all ranks"
says "turned away 127.0.0.1:[0-9]+: the token"

: > "$out"
what="a missing rank" port=$(port)
deadline=2 ranks 4 "$port" secret 0 2
await 1 1
says "rendezvous at 127.0.0.1:$port: rank 1, 3 of 4 did not come in 2.0 s"

: > "$out"
what="a port taken" port=$(port)
ranks 2 "$port" secret 0
present=("${pids[@]}")
send "$port" ''
ranks 2 "$port" secret 0
second=("${pids[@]}")
wait "${second[0]}" && fail "$what: accepted" || [ $? = 1 ] || fail "$what: not a failure"
ranks 2 "$port" secret 1
pids=("${present[@]}" "${pids[@]}")
await 0 0
says "127.0.0.1:$port: the port is taken"

job "ranks started without mpirun" 0 20 env PATH=/nonexistent "$faulty" launch -n 3 rendezvous
for rank in 0 1 2; do says "^rank $rank has 'from rank 0'"; done

echo "$cases jobs ended as promised and left nothing behind"

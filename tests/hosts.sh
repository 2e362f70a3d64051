#!/usr/bin/env bash
# Two hosts as network namespaces, joined by one link, and mpirun over TCP between them: collective calls give what they
# give elsewhere, trainings of every strategy have the bits of one host and the losses of one rank, and when the link is
# cut both sides end with a message.
set -euo pipefail
. "$AGON_SOURCE_DIR/tests/support/for_mpi.sh"
. "$AGON_SOURCE_DIR/tests/support/left_behind.sh"
skip() {
  echo "skipped: $*"
  exit 77
}
command -v ip > /dev/null || skip "no ip (iproute2)"
program=$AGON
[ "$(id -u)" = 0 ] || skip "network namespaces need root"
red=agon-red-$$ blue=agon-blue-$$
folder=$(mktemp -d)
remove() {
  kill_left_behind
  ip netns del $red 2> /dev/null || true
  ip netns del $blue 2> /dev/null || true
  rm -rf "$folder"
}
trap remove EXIT
{ ip netns add $red && ip netns add $blue && ip netns exec $red unshare --uts hostname red &&
  ip link add data netns $red type veth peer name data netns $blue; } > "$folder/out" 2>&1 ||
  skip "network namespaces are not allowed here: $(tail -n 1 "$folder/out")"
for side in "$red 1" "$blue 2"; do
  set -- $side
  ip -n "$1" link set lo up
  ip -n "$1" addr add 10.77.0."$2"/24 dev data
  ip -n "$1" link set data up
done

out=$folder/out
fail() {
  echo "FAILED: $*"
  tail -n 40 "$out"
  exit 1
}
# What mpirun calls instead of ssh: agent HOST COMMAND.
cat > "$folder/agent" << SH
#!/bin/sh
[ "\$1" = 10.77.0.2 ] || exit 9
shift
exec ip netns exec $blue unshare --uts sh -c "hostname blue && \$*"
SH
# What each rank is: its own messages go to a file, since no link may be left to carry them.
cat > "$folder/rank" << SH
#!/bin/sh
exec "\$@" 2> "$folder/errors\$OMPI_COMM_WORLD_RANK"
SH
chmod +x "$folder/agent" "$folder/rank"
# over_tcp RANKS-EACH COMMAND...
over_tcp() {
  local each=$1
  shift
  rm -f "$folder"/errors*
  marked ip netns exec $red unshare --uts sh -c 'hostname red && exec "$@"' sh \
    timeout -k 5 100 mpirun --allow-run-as-root --bind-to none -H 10.77.0.1:"$each",10.77.0.2:"$each" -n $((2 * each)) \
    --mca plm_rsh_agent "$folder/agent" --mca orte_tmpdir_base "$folder" --mca pml ob1 --mca btl self,tcp \
    --mca btl_tcp_if_include 10.77.0.0/24 --mca oob_tcp_if_include 10.77.0.0/24 "$folder/rank" "$@"
}

(over_tcp 1 "$AGON_BINARY_DIR/tests/test_distributed" --no-colors=1 \
  -tc='collectives:*,communicator:*,exchange: there*,exchange: work*') > "$out" 2>&1 || fail "collective calls: exit code $?"
[ "$(grep -c 'Status: SUCCESS' "$out")" = 2 ] || fail "not all ranks reported success"

cat > "$folder/config.toml" << 'TOML'
threads = 1
precision = "f64"
seed = 2
[data]
builtin_bytes = 60000
[model]
layers = 2
width = 32
heads = 2
sequence = 32
[moe]
experts = 4
expert_width = 16
[moe.router]
group = 1
[parallel]
deadline_s = 3
[train]
steps = 20
batch = 4
eval_every = 0
eval_tokens = 256
[log]
format = "none"
TOML
train() { echo train "$folder/config.toml" train.out="$folder/$1" "${@:2}"; }
losses() { sed -E 's/.*"loss":([^,}]*).*/\1/' "$folder/$1/log.jsonl"; }
jobs=1
for strategy in token_choice expert_choice competition unified; do
  options="moe.router.strategy=$strategy"
  [ $strategy = competition ] && options="$options moe.router.rate=0.4 moe.router.warm_up=0"
  "$program" $(train one $options parallel.backend=self) > "$out" 2>&1 || fail "$strategy, one rank"
  "$program" launch -n 4 $(train four $options parallel.expert=2) > "$out" 2>&1 || fail "$strategy, four ranks"
  (over_tcp 2 "$program" $(train hosts $options parallel.expert=2)) > "$out" 2>&1 ||
    { cat "$folder"/errors* >> "$out" && fail "$strategy, two hosts: exit code $?"; }
  for file in "$folder"/four/checkpoints/step-20/*.safetensors; do
    cmp "$file" "$folder/hosts/checkpoints/step-20/${file##*/}" > "$out" 2>&1 || fail "$strategy: other bits in ${file##*/}"
  done
  paste <(losses one) <(losses hosts) | awk -v most=1e-10 '
    { n++; d = ($1 - $2) / $1; if (d < 0) d = -d; if (!(d <= most)) { print "step " n ": " $1 " and " $2; bad = 1 } }
    END { exit bad || n != 20 }' > "$out" || fail "$strategy: other losses than on one rank"
  rm -rf "$folder"/{one,four,hosts}
  jobs=$((jobs + 1))
done

# The link is cut in the middle of a step. Ranks say for whom they waited and end at their deadline; mpirun and its daemon on
# the other side would wait for each other much longer, unless they are told to look whether the other is still there.
# cut SECONDS TEXT: both sides say it, and are gone by then.
cut() {
  local seconds=$1 text=$2 rank here there start
  over_tcp 1 "$program" $(train cut train.steps=1000000 parallel.expert=2 "${@:3}") > "$out" 2>&1 &
  launcher=$!
  for _ in $(seq 600); do
    [ ! -e "$folder/cut/log.jsonl" ] || [ "$(grep -c . "$folder/cut/log.jsonl")" -lt 5 ] || break
    sleep 0.05
  done
  ip -n $red link set data down
  start=$(date +%s%N)
  while pgrep -f -- "^$program train $folder" > /dev/null; do
    [ $((($(date +%s%N) - start) / 1000000)) -lt $((seconds * 1000)) ] || fail "cut link: ranks are still there"
    sleep 0.05
  done
  cat "$folder"/errors* >> "$out"
  for rank in 0 1; do
    [ $rank = 0 ] && here=red there=blue || here=blue there=red
    grep -qE "rank $rank \($here\) in step [0-9]+$text waited [0-9]+ ms for .*rank $((1 - rank)) \($there\)" "$folder/errors$rank" ||
      fail "cut link: rank $rank on $here says nothing of it"
  done
}
cut 10 " failed: call .*:"
kill_left_behind  # mpirun and its daemon
{ wait $launcher || true; } 2> /dev/null
ip -n $red link set data up
rm -rf "$folder/cut"

export OMPI_MCA_oob_tcp_keepalive_time=1 OMPI_MCA_oob_tcp_keepalive_intvl=1 OMPI_MCA_oob_tcp_keepalive_probes=1
cut 10 ", in call .*, has" parallel.deadline_s=60
wait $launcher && fail "cut link: a success"
nothing_left > "$folder/left" || fail "cut link: $(cat "$folder/left")"
echo "$jobs jobs on two hosts as on one, and two that were cut off ended on both sides"

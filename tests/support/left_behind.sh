# For scripts that start jobs: what of a job is still there after its end. Jobs are started with `marked COMMAND`; others may
# run jobs of their own at the same time.
mark=agon-test-$$-$RANDOM
marked() { TEST_MARK=$mark exec "$@"; }  # in a subshell or in the background

in_memory() { compgen -G '/dev/shm/agon-launch-*' || true; compgen -G '/dev/shm/vader_segment.*' || true; }
there_before=" $(in_memory | tr '\n' ' ') "

# Processes of our jobs, and folders and shared memory of jobs that no process uses.
left_behind() {
  local environment each
  for environment in $(grep -lzx "TEST_MARK=$mark" /proc/[0-9]*/environ 2> /dev/null || true); do
    each=${environment#/proc/}
    echo "process ${each%/environ}: $(cat "/proc/${each%/environ}/cmdline" 2> /dev/null | tr "\0" " ")"
  done
  for each in $(in_memory); do
    [[ "$there_before" == *" $each "* ]] || pgrep -f -- "$each" > /dev/null || grep -qsF "$each" /proc/[0-9]*/maps || echo "$each"
  done
}

kill_left_behind() {
  local processes
  processes=$(left_behind | sed -n 's/^process \([0-9]*\):.*/\1/p')
  [ -z "$processes" ] || kill -KILL $processes 2> /dev/null || true
}

# Waits until nothing is left, for five seconds.
nothing_left() {
  local left
  for _ in $(seq 100); do
    left=$(left_behind)
    [ -n "$left" ] || return 0
    sleep 0.05
  done
  echo "left behind: $left"
  return 1
}

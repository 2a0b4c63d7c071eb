#!/bin/bash
# Status hook: prints the last line of the log, exits with 0 running, 1 finished, 2 failed, 3 unknown (ask again later).
set -uo pipefail
RUNNING=0 FINISHED=1 FAILED=2 UNKNOWN=3

answer() {
  # a progress bar writes over its own line
  local line
  line=$(tail -n 1 sessionfx.log 2> /dev/null | tr '\r' '\n' | tail -n 1)
  echo "$1${line:+: $line}"
  exit "$2"
}
ended() {
  [ -s exit-code ] || return 0
  [ "$(cat exit-code)" = 0 ] && answer finished $FINISHED
  answer "failed with exit code $(cat exit-code)" $FAILED
}

ended
[ -s job ] || answer "not started" $UNKNOWN
read -r kind id < job
case $kind in
  slurm)
    # of a job that ended some time ago squeue says that its id is invalid; other errors pass
    if state=$(squeue --noheader --jobs="$id" --format=%T 2>&1); then
      case $state in
        PENDING | CONFIGURING | SUSPENDED) answer waiting $RUNNING ;;
        RUNNING | COMPLETING) answer running $RUNNING ;;
      esac
    elif [[ $state != *"Invalid job id"* ]]; then
      answer "Slurm does not answer" $UNKNOWN
    fi
    ;;
  process)
    # its folder tells it from another process that has been given the same number
    [ "$(readlink "/proc/$id/cwd")" = "$PWD" ] && answer running $RUNNING
    ;;
  *) answer "the file job cannot be understood" $UNKNOWN ;;
esac
sleep 1
ended # in the meantime
answer "ended without an exit code: stopped, out of time or out of memory" $FAILED

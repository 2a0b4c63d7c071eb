#!/bin/bash
# Stop hook. 0 stopped, 1 not.
set -uo pipefail
[ -s job ] || { echo "not started"; exit 1; }
read -r kind id < job
case $kind in
  slurm) scancel "$id" ;;
  process)
    [ "$(readlink "/proc/$id/cwd")" = "$PWD" ] || { echo "not running"; exit 0; }
    kill -TERM -- "-$id"
    ;;
  *) echo "the file job cannot be understood"; exit 1 ;;
esac

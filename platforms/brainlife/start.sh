#!/bin/bash
# Start hook: submits main to Slurm where there is one, else starts it on this machine. 0 started, 1 not.
set -uo pipefail
rm -f exit-code job
if command -v sbatch > /dev/null; then
  id=$(sbatch --parsable --output=sessionfx.log --chdir="$PWD" ./main) || exit 1
  echo "slurm ${id%%;*}" > job
else
  # a session of its own: it outlives this shell, and stop.sh reaches all of it
  setsid ./main > sessionfx.log 2>&1 < /dev/null &
  echo "process $!" > job
fi

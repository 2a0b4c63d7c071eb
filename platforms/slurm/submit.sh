#!/bin/bash
# Submit the participants as an array and the group level after them:
#
#   BIDS=/data/bids OUT=/data/sessionfx OPTIONS=options.txt platforms/slurm/submit.sh [sbatch options, such as --mem=4G --time=1:00:00]
#
# OPTIONS holds one option per line, for example
#   --task=stroop
#   --contrast=incongruent - congruent
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export BIDS OUT OPTIONS SESSIONFX=${SESSIONFX:-sessionfx}

last=$(($(find "$BIDS" -mindepth 1 -maxdepth 1 -name 'sub-*' | wc -l) - 1))
participants=$(sbatch --parsable --array="0-$last" "$@" "$here/participants.sbatch")
# afterok: the group level waits until every participant has succeeded
group=$(sbatch --parsable --dependency="afterok:$participants" --kill-on-invalid-dep=yes "$@" "$here/group.sbatch")
echo "participants: job $participants, group: job $group"

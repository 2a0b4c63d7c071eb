#!/bin/bash
# Submit the participants as an array and the group level after them:
#
#   BIDS=/data/bids OUT=/data/sessionfx IMAGE=sessionfx.sif OPTIONS=options.txt platforms/slurm/submit.sh [sbatch options]
#
#   BIDS          raw dataset
#   OUT           output folder, outside the dataset
#   OPTIONS       file with one option per line, passed on as they are, for example
#                   --task=stroop
#                   --contrast=incongruent - congruent
#   IMAGE         image for Apptainer; without it the program of this environment runs, or the command in SESSIONFX
#   PARTICIPANTS  labels separated by spaces; all there are by default
#
# sbatch options, such as --mem=2G --time=1:00:00 --partition=short, hold for both jobs.
set -euo pipefail
stop() { echo "submit.sh: $1" >&2; exit 2; }

command -v sbatch > /dev/null || stop "The command sbatch is not found: submit on a node of a cluster with Slurm. Without Slurm, run sessionfx itself."
for name in BIDS OUT OPTIONS; do
  [ -n "${!name:-}" ] || stop "The variable $name is not set; the head of this script describes it."
done
BIDS=$(realpath -- "$BIDS")
OUT=$(realpath -m -- "$OUT")
OPTIONS=$(realpath -- "$OPTIONS")
IMAGE=${IMAGE:-}
[ -z "$IMAGE" ] || IMAGE=$(realpath -- "$IMAGE")
PARTICIPANTS=${PARTICIPANTS:-$(find "$BIDS" -mindepth 1 -maxdepth 1 -name 'sub-*' -printf '%f\n' | sort | tr '\n' ' ')}
export BIDS OUT OPTIONS IMAGE PARTICIPANTS SESSIONFX=${SESSIONFX:-sessionfx}
read -r -a labels <<< "$PARTICIPANTS"
[ "${#labels[@]}" -gt 0 ] || stop "$BIDS has no sub-* folder. Correct BIDS."
mkdir -p "$OUT"

job=$(cd "$(dirname "$0")" && pwd)/sessionfx.sbatch
participants=$(sbatch --parsable --array="0-$((${#labels[@]} - 1))" --output=sessionfx-%A_%a.log "$@" "$job")
# afterok: the group level waits until every participant has succeeded
group=$(sbatch --parsable --dependency="afterok:$participants" --kill-on-invalid-dep=yes \
  --job-name=sessionfx-group --output=sessionfx-group-%j.log "$@" "$job")
echo "participants: job $participants, group: job $group"

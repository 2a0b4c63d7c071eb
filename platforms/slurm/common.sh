# Read by the two jobs: how to call the program goes into the array `program`, the options into `options`.
mapfile -t options < "$OPTIONS"
if [ -n "$IMAGE" ]; then
  # Of the host only these two folders (more: the variable APPTAINER_BIND), and of the environment the memory granted
  program=(apptainer run --cleanenv --containall --env "SLURM_MEM_PER_NODE=${SLURM_MEM_PER_NODE:-}"
    --bind "$BIDS:$BIDS:ro" --bind "$OUT:$OUT" "$IMAGE")
else
  read -r -a program <<< "$SESSIONFX"
fi

#!/usr/bin/env bash
# Draws many samples under SLURM: an array with one task for each GPU, each of which draws its shard of the samples.
#
#     sbatch --array=0-7 scripts/slurm_sample.sh runs/dual_track_base ligands --protein proteins.fasta --num 100000
#
# writes ligands_0.csv to ligands_7.csv. Sample i does not depend on the number of tasks. A stopped task continues from its .partial file.
# PROTLIG_VENV: a virtual environment to activate; without it `protlig` must be on the PATH.
#SBATCH --job-name=protlig-sample
#SBATCH --array=0-3
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --output=slurm-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: sbatch $0 RUN OUT [options of protlig sample]" >&2 && exit 2; }

if [ -n "${PROTLIG_VENV:-}" ]; then
    # shellcheck disable=SC1091
    . "$PROTLIG_VENV/bin/activate"
fi
run="$1" out="$2"
shift 2
exec protlig sample "$run" --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --out "${out}_$SLURM_ARRAY_TASK_ID.csv" "$@"

#!/usr/bin/env bash
# Trains under SLURM on one or several nodes, and requeues itself when its time is up.
#
#     sbatch scripts/slurm_train.sh sedd/uniref50_stable data.path=data/uniref50.fasta.gz
#     sbatch --nodes=4 --time=04:00:00 scripts/slurm_train.sh dual_track/base data.path=pairs.csv train.distributed=fsdp
#
# Submit it from a folder on a file system that all nodes share; runs/, data/ and the log are in that folder. Environment variables:
#     PROTLIG_VENV      a virtual environment to activate; without it `protlig` must be on the PATH
#     PROTLIG_DOWNLOAD  a data set that `protlig download` fetches first, once, before any GPU process starts (for instance uniref50)
#     WANDB_MODE        default offline, since compute nodes often have no network; upload afterwards with: wandb sync
#
# SLURM starts one task for each GPU, without a launcher in between, so that its signals reach the trainer directly.
# --gpus-per-node, not --gpus-per-task: a task selects its GPU by its local rank, so it must see all GPUs of the node.
#SBATCH --job-name=protlig
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=USR1@300
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: sbatch $0 CONFIG [key.sub=value ...]" >&2 && exit 2; }

if [ -n "${PROTLIG_VENV:-}" ]; then
    # shellcheck disable=SC1091
    . "$PROTLIG_VENV/bin/activate"
fi
export WANDB_MODE="${WANDB_MODE:-offline}"
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MASTER_ADDR
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

if [ -n "${PROTLIG_DOWNLOAD:-}" ]; then
    srun --nodes=1 --ntasks=1 protlig download "$PROTLIG_DOWNLOAD" --out data
fi

# Five minutes before the end SLURM sends USR1 to the tasks. They save and exit with 128 + 10; the same command then continues from there.
status=0
srun --kill-on-bad-exit=0 bash -c \
    'RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS exec protlig train "$@"' protlig "$@" || status=$?
if [ "$status" -eq 138 ]; then
    echo "saved before the end of the time; requeueing job $SLURM_JOB_ID"
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"

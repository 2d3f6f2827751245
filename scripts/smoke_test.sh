#!/usr/bin/env bash
# Trains DPLM 35M for 100 steps on 1,000 sequences, then samples from its checkpoint. Meant for a GPU.
#
#     scripts/smoke_test.sh sequences.fasta.gz [key.sub=value ...]
set -euo pipefail
data="${1:?usage: scripts/smoke_test.sh FASTA [key.sub=value ...]}"
shift
protlig train dplm/35m data.path="$data" data.limit=1000 name=smoke_35m train.steps=100 train.accumulation=1 \
    train.tokens_per_batch=2048 tracks.protein.max_length=258 train.optim.lr=1e-4 train.optim.warmup_steps=10 \
    train.validate_every=50 train.checkpoint_every=50 "$@"
protlig sample --model runs/smoke_35m --task sequence --length 60 100 --num 4 --steps 60 --out runs/smoke_35m/samples.fasta

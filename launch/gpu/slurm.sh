#!/usr/bin/env bash
# Trains on the GPUs of a Slurm cluster: one process a node, which has all of its GPUs. From a checkout that all nodes
# share, with omniimage[cuda] in its .venv or in the environment that sbatch is called from:
#
#   sbatch --nodes=2 --gpus-per-node=8 --time=24:00:00 launch/gpu/slurm.sh \
#     --config=configs/omni.py:300m --workdir=/shared/runs/omni --config.mesh.fsdp=8
#
# Arguments are launch.train's. Two minutes before its time is over the job saves; then, and where a node was lost, it
# queues itself again and goes on from its last checkpoint. Other errors end it. docs/gpu.md
#SBATCH --job-name=omniimage
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=omniimage-%j.log
set -euo pipefail

: "${SLURM_JOB_ID:?start it with sbatch}"
cd "$SLURM_SUBMIT_DIR"
# shellcheck disable=SC1091
if [ -f .venv/bin/activate ]; then . .venv/bin/activate; fi

JAX_COORDINATOR_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p):$((20000 + SLURM_JOB_ID % 20000))
export JAX_COORDINATOR_ADDRESS JAX_NUM_PROCESSES=$SLURM_JOB_NUM_NODES
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}
export JAX_PLATFORMS=cuda # a node whose GPUs cannot be used is an error, not a slow node

code=0
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 bash -c 'JAX_PROCESS_ID=$SLURM_PROCID exec "$@"' task python -m launch.train "$@" || code=$?
if [ "$code" = 75 ]; then # run me again
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

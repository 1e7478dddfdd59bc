#!/usr/bin/env bash
# The paper's data sets as a SLURM job array, without Dask. An example: it has not been run on a SLURM cluster.
#
#   ./run_all.sh status paper              # on the login node, once: makes the environment
#   sbatch cluster/slurm_array.sh          # from the root of the repository, on a file system that all nodes see
#   ./run_all.sh status paper              # how far it is
#
# Each job makes every 28th shard. Jobs that are killed or run out of time are submitted again as they are:
# finished shards are kept. When nothing is missing, ./run_all.sh paper goes on from there.
#SBATCH --job-name=grfsaxs
#SBATCH --array=1-28
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=72:00:00
#SBATCH --output=grfsaxs-%A_%a.log
##SBATCH --gres=gpu:1                     # with --device gpu below, and in the first line above
set -euo pipefail

export NUMBA_NUM_THREADS=$SLURM_CPUS_PER_TASK OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
./run_all.sh generate paper --shards "$SLURM_ARRAY_TASK_ID/28"  # of 28, also when a few jobs are submitted again

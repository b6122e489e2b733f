#!/bin/bash
#SBATCH --job-name=table-1
#SBATCH --array=1-8
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=96G
#SBATCH --time=12:00:00
# a minute before the time is over: the program ends with what is finished on disk
#SBATCH --signal=B:TERM@60
#
# Submit it in a folder on a file system that all nodes share, with the study's options:
#   sbatch slurm-array.sh --out out/table_1 --model MODEL --device cuda --dtype bfloat16
# Submit it again, or some of its jobs with --array=3,7, for what was cut short. When all are done,
#   recast-probe study table_1 ... (the same options)
# makes the table. SHARDS is the size of the whole array, also when only some jobs run again.
set -euo pipefail
SHARDS=8
# in place of the shell, so that the signal reaches the program
exec recast-probe study table_1 "$@" --shard "$SLURM_ARRAY_TASK_ID/$SHARDS"

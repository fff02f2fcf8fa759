#!/usr/bin/env bash
# Many small jobs in one go through a SLURM of one node and profiles/slurm: all must be done and none lost.
# `make test-load` runs it; its argument is their number.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
. "$ROOT/tests/slurm/cluster.sh"
PYTHON=${PYTHON:-python3}
JOBS=${1:-2000}

cluster_or_skip test-load
mkdir "$folder/run"
echo "$JOBS jobs through SLURM, $CLUSTER_CPUS at a time."
begun=$(date +%s)
(
  cd "$folder/run"
  exec setsid "$PYTHON" -m snakemake --snakefile "$ROOT/tests/slurm/load.smk" --config jobs="$JOBS" \
    --workflow-profile "$ROOT/profiles/slurm" --jobs "$JOBS" --max-jobs-per-timespan 100/1s \
    --slurm-init-seconds-before-status-checks 10 --max-status-checks-per-second 1 --latency-wait 10
) >"$folder/snakemake.log" 2>&1 &
running=$!
wait "$running" || { tail -n 30 "$folder/snakemake.log" >&2; exit 1; }
seconds=$(($(date +%s) - begun))

for ((number = 0; number < JOBS; number++)); do
  [ "$(cat "$folder/run/done/$number.txt")" = "$number" ] || { echo "job $number was lost" >&2; exit 1; }
done
states=$(scontrol --oneliner show jobs | grep -o 'JobState=[A-Z_]*' | sort | uniq -c | xargs)
echo "test-load passed: $JOBS jobs, none lost, in $seconds s ($((seconds * 1000 / JOBS)) ms a job; $states)."

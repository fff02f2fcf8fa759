#!/usr/bin/env bash
# Many small jobs in one go through a SLURM of one node and profiles/slurm: all must be done, none lost, and SLURM asked
# for their states no more often than the profile says. `make test-load` runs it; its argument is their number.
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
# A job's two nested Snakemakes wait half of their time, and compute little: more of them than cores.
CLUSTER_CPUS=${CLUSTER_CPUS:-$((4 * $(nproc)))}
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
    --workflow-profile "$ROOT/profiles/slurm" --jobs "$JOBS" --max-jobs-per-timespan 100/1s
) >"$folder/snakemake.log" 2>&1 &
running=$!
wait "$running" || { tail -n 30 "$folder/snakemake.log" >&2; exit 1; }
seconds=$(($(date +%s) - begun))

for ((number = 0; number < JOBS; number++)); do
  [ "$(cat "$folder/run/done/$number.txt")" = "$number" ] || { echo "job $number was lost" >&2; exit 1; }
done
asked=$(sdiag | awk '$1 == "REQUEST_JOB_INFO" {print substr($4, 7)}')
often=$(awk -v seconds="$seconds" '/^max-status-checks-per-second:/ {print int($2 * seconds) + 2}' \
  "$ROOT/profiles/slurm/config.yaml")
[ "$asked" -gt 0 ] && [ "$asked" -le "$often" ] || {
  echo "the jobs' states were asked for $asked times in $seconds s, and at most $often are allowed" >&2
  exit 1
}
states=$(scontrol --oneliner show jobs | grep -o 'JobState=[A-Z_]*' | sort | uniq -c | xargs)
echo "test-load passed: $JOBS jobs, none lost, in $seconds s ($((seconds * 1000 / JOBS)) ms a job; $states);" \
  "their states were asked for $asked times ($often are allowed)."

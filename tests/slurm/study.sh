#!/usr/bin/env bash
# The smoke study on a SLURM of one node, through profiles/slurm: one training is requeued in the middle and must go on
# from its checkpoint, and all tables must equal those of an undisturbed local run. In copies of this folder, which are
# deleted if all goes well. `make test-slurm` runs it; where SLURM cannot be started it says why, and is skipped.
# Arguments are targets instead of the whole study; they must need the training of es2 (`training` is the least).
set -euo pipefail

ROOT=$(cd "$(dirname "$0")/../.." && pwd)
. "$ROOT/tests/slurm/cluster.sh"
PYTHON=${PYTHON:-python3}
STEPS=300
CONFIGS=(config/smoke.yaml tests/slurm/longer.yaml)
TRAINING=results/smoke/models/tiny/es2/s0

cluster_or_skip test-slurm

# begin COPY ARGUMENTS: Snakemake on the smoke study in a copy of this folder, with the es2 that lies there. In a
# process group of its own, so that all of it can be ended.
begin() {
  local copy=$folder/$1
  shift
  (
    cd "$copy"
    PYTHONPATH=$copy exec setsid "$PYTHON" -m snakemake --configfile "${CONFIGS[@]}" "$@"
  ) >"$copy.log" 2>&1 &
  running=$!
}

# fail COPY: show how its Snakemake ended.
fail() {
  tail -n 30 "$folder/$1.log" >&2
  exit 1
}

for copy in local slurm; do
  mkdir "$folder/$copy"
  (cd "$ROOT" && cp -r Snakefile config es2 profiles workflow tests "$folder/$copy")
done

echo "The smoke study, locally and undisturbed."
begin local --cores "$(nproc)" -- "$@"
wait "$running" || fail local

echo "The smoke study through SLURM."
begin slurm --workflow-profile profiles/slurm --slurm-init-seconds-before-status-checks 3 --latency-wait 10 \
  --max-status-checks-per-second 1 --slurm-keep-successful-logs -- "$@"

checkpoint=$folder/slurm/$TRAINING/checkpoints/checkpoint.safetensors
until [ -e "$checkpoint" ]; do
  kill -0 "$running" 2>/dev/null || fail slurm
  sleep 0.2
done
job=$(squeue --noheader --states RUNNING --format '%i %k' | awk '/rule_finetune_wildcards_tiny_es2/ {print $1; exit}')
[ -n "$job" ] || { echo "no job of SLURM's trains es2, though there is a checkpoint" >&2; exit 1; }
scontrol requeue "$job"
cluster_wait "job $job is queued again" "squeue --noheader --states PENDING --jobs $job | grep -q ."
scontrol update "JobId=$job" StartTime=now # SLURM holds a requeued job back for two minutes
[ -e "$checkpoint" ] || { echo "the training was over before it could be interrupted" >&2; exit 1; }
echo "Job $job, which trains es2, was requeued in mid-training."

wait "$running" || fail slurm
running=

# The first state of the progress bar tells where the training began; SLURM starts the log of a requeued job anew.
said=$(find "$folder/slurm/.snakemake/slurm_logs/rule_finetune" -name "$job.log" -exec cat {} + | tr '\r' '\n')
begun=$(grep -oE "[0-9]+/$STEPS \[00:00<\?" <<<"$said" | head -n 1 | cut -d / -f 1)
[ "${begun:-0}" -gt 0 ] || {
  echo "the requeued training began at step ${begun:-unknown}, not at a checkpoint" >&2
  exit 1
}
echo "It went on from its checkpoint at step $begun of $STEPS."

[ ! -e "$folder/slurm/$TRAINING/checkpoints.lock" ] || { echo "the training left its lock behind" >&2; exit 1; }

cmp "$folder"/{local,slurm}/$TRAINING/adapter/adapter_model.safetensors
compared=0
while read -r table; do
  cmp "$folder/local/$table" "$folder/slurm/$table"
  compared=$((compared + 1))
done < <(cd "$folder/local" && find results/smoke/tables -name '*.csv' ! -name cost.csv | sort)
[ "$compared" -gt 0 ] || { echo "there was no table to be compared" >&2; exit 1; }
submitted=$(grep -c "has been submitted with SLURM jobid" "$folder/slurm.log")
echo "test-slurm passed: $submitted jobs through SLURM;" \
  "its adapter and tables ($compared) equal the local run's, byte for byte."

# A SLURM of one node on this machine, from Debian's packages slurmctld, slurmd, slurm-client and munge. To be sourced,
# for `cluster_or_skip NAME`: it starts the cluster, with `$folder` for its state and the test's own files, or ends the
# test with a reason and status 0 (something is missing, or SLURM's own daemons do not come up). When the test ends, so
# do the cluster and the process group `$running`, and the folder goes unless the test failed. A machine that has a
# SLURM of its own is left alone.

CLUSTER_CONF=/etc/slurm/slurm.conf # in its default place: job steps forget SLURM_CONF
CLUSTER_MARK="# The one-node cluster of es2's tests; deleted when they end."
CLUSTER_PIDS=()
CLUSTER_CPUS=${CLUSTER_CPUS:-2}

cluster_or_skip() {
  local why
  CLUSTER_TEST=$1
  why=$(cluster_missing)
  if [ -n "$why" ]; then
    echo "$CLUSTER_TEST is skipped: $why."
    exit 0
  fi
  folder=$(mktemp -d)
  running=
  trap cluster_finish EXIT
  trap 'exit 130' INT TERM
  cluster_start "$folder/cluster" || {
    echo "$CLUSTER_TEST is skipped: SLURM does not come up on this machine, for the reasons above."
    exit 0
  }
}

cluster_finish() {
  local status=$?
  if [ -n "$running" ]; then
    kill -KILL -- "-$running" 2>/dev/null || true
    wait "$running" 2>/dev/null || true
  fi
  cluster_stop
  if [ $status = 0 ]; then rm -rf "$folder"; else echo "$CLUSTER_TEST failed; its files are in $folder" >&2; fi
}

cluster_missing() {
  local name
  [ "$(id -u)" = 0 ] || { echo "this needs root, to start SLURM's daemons"; return; }
  for name in munged slurmctld slurmd sbatch squeue scontrol runuser; do
    command -v "$name" >/dev/null || {
      echo "there is no $name (Debian: apt-get install slurmctld slurmd slurm-client munge)"
      return
    }
  done
  if [ -e "$CLUSTER_CONF" ] && ! head -n 1 "$CLUSTER_CONF" | grep -qxF "$CLUSTER_MARK"; then
    echo "$CLUSTER_CONF is not ours: this machine has a SLURM of its own"
  elif pgrep -x slurmctld >/dev/null || pgrep -x slurmd >/dev/null; then
    echo "slurmctld or slurmd is running already"
  fi
}

cluster_start() {
  CLUSTER_STATE=$1
  local host
  host=$(hostname -s)
  mkdir -p "$CLUSTER_STATE"/{controller,node,bin}
  # Where `scontrol` takes more than ten seconds, on a busy machine, the plugin asks `sacct`, which fails without
  # slurmdbd; it then forgets its jobs and waits for ever. Its last argument is the name of the jobs.
  printf '#!/bin/sh\nshift $(($# - 1))\nexec squeue --format "%%i|%%T" --states all --noheader --name "$1"\n' \
    >"$CLUSTER_STATE/bin/sacct"
  chmod +x "$CLUSTER_STATE/bin/sacct"
  PATH=$CLUSTER_STATE/bin:$PATH
  cat >"$CLUSTER_CONF" <<EOF
$CLUSTER_MARK
ClusterName=es2
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MinJobAge=3600
KillWait=5
ReturnToService=2
MaxJobCount=20000
SlurmdParameters=config_overrides
StateSaveLocation=$CLUSTER_STATE/controller
SlurmdSpoolDir=$CLUSTER_STATE/node
SlurmctldPidFile=$CLUSTER_STATE/slurmctld.pid
SlurmdPidFile=$CLUSTER_STATE/slurmd.pid
SlurmctldLogFile=$CLUSTER_STATE/slurmctld.log
SlurmdLogFile=$CLUSTER_STATE/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$CLUSTER_CPUS RealMemory=16000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
  if ! munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then
    mkdir -p /run/munge && chown munge: /run/munge
    runuser -u munge -- munged --foreground >"$CLUSTER_STATE/munged.log" 2>&1 &
    CLUSTER_PIDS+=($!)
    cluster_wait "munged answers" 'munge -n | unmunge' || return 1
  fi
  slurmctld -D >"$CLUSTER_STATE/slurmctld.out" 2>&1 &
  CLUSTER_PIDS+=($!)
  slurmd -D >"$CLUSTER_STATE/slurmd.out" 2>&1 &
  CLUSTER_PIDS+=($!)
  cluster_wait "the node is idle" 'sinfo -h -o %T | grep -qx idle'
}

# Wait up to a minute until a command succeeds.
cluster_wait() {
  local second
  for second in $(seq 60); do
    bash -c "$2" >/dev/null 2>&1 && return
    sleep 1
  done
  echo "It was waited for a minute that $1; the logs in $CLUSTER_STATE:" >&2
  tail -n 5 "$CLUSTER_STATE"/*.{log,out} >&2
  return 1
}

cluster_stop() {
  local index
  [ ${#CLUSTER_PIDS[@]} = 0 ] || scancel --user root 2>/dev/null || true
  for ((index = ${#CLUSTER_PIDS[@]} - 1; index >= 0; index--)); do
    kill "${CLUSTER_PIDS[index]}" 2>/dev/null || true
    wait "${CLUSTER_PIDS[index]}" 2>/dev/null || true
  done
  CLUSTER_PIDS=()
  if [ -e "$CLUSTER_CONF" ] && head -n 1 "$CLUSTER_CONF" | grep -qxF "$CLUSTER_MARK"; then
    rm -f "$CLUSTER_CONF"
  fi
}

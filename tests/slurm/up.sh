#!/usr/bin/env bash
# Starts a Slurm for tests on this host, without systemd, on loopback only. Idempotent: starts again what has ended.
#
#   packages: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge
#             and slurmdbd mariadb-server for WITH_DBD=1
#   use, as root: SLURM_HOME=/tmp/my-slurm BASE_PORT=17000 NODES=2 tests/slurm/up.sh && . /tmp/my-slurm/env.sh
#
# All files are in SLURM_HOME, also the key of munge and the database. Several can run side by side, each with its own
# SLURM_HOME and BASE_PORT.
set -euo pipefail
export SLURM_HOME=${SLURM_HOME:-/tmp/greenseg-slurm} # short: paths of sockets have at most 107 characters
BASE_PORT=${BASE_PORT:-16817}                   # slurmctld; BASE_PORT + 1 … + NODES: slurmd; + 40: slurmdbd; + 41: mariadb
NODES=${NODES:-1}                               # slurmd on this host, with the names n1 … nN
CPUS=${CPUS:-2}                                 # CPUs of a node; all nodes together may have more than this host
MEMORY=${MEMORY:-}                              # MB of a node; by default, an equal share of this host
GPUS=${GPUS:-0}                                 # GPUs of a node; their files are copies of /dev/null
WITH_DBD=${WITH_DBD:-0}                         # 1: accounting, so that sacct works
PREEMPTION=${PREEMPTION:-0}                     # 1: jobs in the partition `urgent` requeue those in `main`
GRACE_SECONDS=${GRACE_SECONDS:-0}               # time between the signal of a preemption and the requeue
PREEMPT_PARAMETERS=${PREEMPT_PARAMETERS:-}      # such as preempt_send_user_signal
OVERSUBSCRIBE=${OVERSUBSCRIBE:-NO}              # of the partition `main`
KILL_WAIT=${KILL_WAIT:-5}                       # seconds between SIGTERM and SIGKILL
EXPIRE_SECONDS=${EXPIRE_SECONDS:-5}             # of credentials; a requeued job waits that long before its next start
[ "$(id -u)" = 0 ] || { echo "up.sh: needs root" >&2; exit 1; }
HOST=$(hostname -s)
mkdir -p "$SLURM_HOME"/{state,spool,log,munge}
chmod 755 "$SLURM_HOME"
cd "$SLURM_HOME"
unset TMPDIR # the database has a user of its own, who may not read it
trap '[ $? = 0 ] || { echo "up.sh: Slurm is not up" >&2; tail -n 15 log/*.log >&2; }' EXIT

# Whether the process of a pid file is a living daemon. A zombie is dead: init of a container may be slow to reap it.
alive() {
  local pid
  [ -s "$1" ] && pid=$(cat "$1" 2>/dev/null) && [ -r "/proc/$pid/stat" ] &&
    [ "$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat")" != Z ] &&
    grep -qE '^(munged|slurmctld|slurmd|slurmdbd|mariadbd)$' "/proc/$pid/comm"
}

stop() {
  if alive "$1"; then
    kill "$(cat "$1")" || true
    for _ in $(seq 100); do alive "$1" || break; sleep 0.1; done
  fi
  rm -f "$1"
}

# put FILE MODE < text: true if the text is a new one.
put() {
  cat > "$1.new"
  chmod "$2" "$1.new"
  if cmp -s "$1.new" "$1"; then rm "$1.new"; return 1; fi
  mv "$1.new" "$1"
}

# ── munge: a key and a socket of its own

chmod 711 munge
[ -s munge/key ] || (umask 077; dd if=/dev/urandom of=munge/key bs=1024 count=1 status=none)
if ! alive munge/pid; then
  rm -f munge/sock* munge/pid
  munged --key-file="$SLURM_HOME/munge/key" --socket="$SLURM_HOME/munge/sock" --pid-file="$SLURM_HOME/munge/pid" \
    --seed-file="$SLURM_HOME/munge/seed" --log-file="$SLURM_HOME/munge/log" --num-threads=2
fi
munge -S "$SLURM_HOME/munge/sock" -n | unmunge -S "$SLURM_HOME/munge/sock" >/dev/null
AUTHENTICATION="socket=$SLURM_HOME/munge/sock"

# ── accounting

ACCOUNTING="AccountingStorageType=accounting_storage/none"
if [ "$WITH_DBD" = 1 ]; then
  DBD_PORT=$((BASE_PORT + 40)) DATABASE_PORT=$((BASE_PORT + 41))
  if ! alive mysql.pid; then
    rm -f mysql.pid
    if [ ! -d mysql/mysql ]; then
      mkdir -p mysql
      chown mysql:mysql mysql
      mariadb-install-db --no-defaults --user=mysql --datadir="$SLURM_HOME/mysql" --skip-test-db \
        --auth-root-authentication-method=socket >log/mysql-install.log 2>&1
    fi
    mkdir -p mysqlrun
    touch log/mysql.log
    chown mysql mysqlrun log/mysql.log
    setsid mariadbd --no-defaults --user=mysql --datadir="$SLURM_HOME/mysql" --bind-address=127.0.0.1 \
      --port=$DATABASE_PORT --socket="$SLURM_HOME/mysqlrun/sock" --pid-file="$SLURM_HOME/mysqlrun/pid" \
      --log-error="$SLURM_HOME/log/mysql.log" --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
      </dev/null >/dev/null 2>&1 &
    echo $! > mysql.pid
    for _ in $(seq 150); do mariadb-admin --no-defaults -S mysqlrun/sock ping >/dev/null 2>&1 && break; sleep 0.1; done
    mariadb --no-defaults -S mysqlrun/sock -e "create user if not exists 'slurm'@'%' identified by 'slurm';
      grant all on slurm_acct_db.* to 'slurm'@'%'; flush privileges"
  fi
  put slurmdbd.conf 600 <<CONF || true
AuthType=auth/munge
AuthInfo=$AUTHENTICATION
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$DBD_PORT
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$DATABASE_PORT
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
LogFile=$SLURM_HOME/log/slurmdbd.log
PidFile=$SLURM_HOME/slurmdbd.pid
CommunicationParameters=NoInAddrAny
CONF
  alive slurmdbd.pid || SLURM_CONF=$SLURM_HOME/slurm.conf slurmdbd
  ACCOUNTING="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD_PORT
AccountingStoragePass=$SLURM_HOME/munge/sock"
fi

# ── configuration

if [ "$NODES" -eq 1 ]; then
  LIST=n1 PORTS=$((BASE_PORT + 1))
else
  LIST="n[1-$NODES]" PORTS="[$((BASE_PORT + 1))-$((BASE_PORT + NODES))]"
fi
MEMORY=${MEMORY:-$(awk -v n="$NODES" '/MemTotal/ {print int($2 / 1024 / n * 0.9)}' /proc/meminfo)}
GPU_TYPES='' GPU_NODE=''
: > gres.lines
if [ "$GPUS" -gt 0 ]; then
  GPU_TYPES="GresTypes=gpu" GPU_NODE=" Gres=gpu:$GPUS"
  for i in $(seq 0 $((GPUS - 1))); do
    [ -e "gpu$i" ] || mknod "gpu$i" c 1 3
    echo "Name=gpu File=$SLURM_HOME/gpu$i" >> gres.lines
  done
fi
put gres.conf 644 < gres.lines || true
PREEMPT='' URGENT=''
if [ "$PREEMPTION" = 1 ]; then
  PREEMPT="PreemptType=preempt/partition_prio
PreemptMode=REQUEUE${PREEMPT_PARAMETERS:+
SlurmctldParameters=$PREEMPT_PARAMETERS}"
  URGENT="PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=60 PriorityTier=10 PreemptMode=OFF State=UP"
fi
if put slurm.conf 644 <<CONF
ClusterName=greenseg
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$BASE_PORT
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=$AUTHENTICATION,cred_expire=$EXPIRE_SECONDS
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$SLURM_HOME/state
SlurmdSpoolDir=$SLURM_HOME/spool/%n
SlurmctldPidFile=$SLURM_HOME/slurmctld.pid
SlurmdPidFile=$SLURM_HOME/slurmd.%n.pid
SlurmctldLogFile=$SLURM_HOME/log/slurmctld.log
SlurmdLogFile=$SLURM_HOME/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
SlurmdParameters=config_overrides
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1024
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=100000
$ACCOUNTING
$GPU_TYPES
$PREEMPT
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
${OVER_MEMORY_KILL:+JobAcctGatherParams=OverMemoryKill}
AcctGatherEnergyType=${ENERGY_PLUGIN:-acct_gather_energy/none}
AcctGatherNodeFreq=${ENERGY_SECONDS:-0}
JobCompType=jobcomp/none
ReturnToService=2
KillWait=$KILL_WAIT
MinJobAge=3600
JobRequeue=1
MailProg=/bin/true
NodeName=$LIST NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$PORTS CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY$GPU_NODE State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 PriorityTier=1 GraceTime=$GRACE_SECONDS OverSubscribe=$OVERSUBSCRIBE State=UP
$URGENT
CONF
then
  for pid in slurmd.*.pid slurmctld.pid; do stop "$pid"; done
fi
echo "export SLURM_CONF=$SLURM_HOME/slurm.conf" > env.sh
export SLURM_CONF=$SLURM_HOME/slurm.conf
if [ "$WITH_DBD" = 1 ]; then
  for _ in $(seq 100); do sacctmgr -n show cluster >/dev/null 2>&1 && break; sleep 0.2; done
  [ -n "$(sacctmgr -n show cluster greenseg)" ] || sacctmgr -i add cluster greenseg >/dev/null
fi

# ── daemons

alive slurmctld.pid || slurmctld
for i in $(seq "$NODES"); do alive "slurmd.n$i.pid" || slurmd -N "n$i"; done
for _ in $(seq 300); do
  up=$(sinfo -h -N -p main -o %T 2>/dev/null | grep -cE '^(idle|mixed|allocated|completing)$' || true)
  [ "$up" = "$NODES" ] && exit 0
  sleep 0.1
done
sinfo >&2 || true
exit 1

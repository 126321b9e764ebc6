#!/usr/bin/env bash
# Stops the Slurm that up.sh started in SLURM_HOME, with its jobs. Idempotent. --purge also deletes SLURM_HOME.
set -uo pipefail
SLURM_HOME=${SLURM_HOME:-/tmp/greenseg-slurm}
cd "$SLURM_HOME" 2>/dev/null || exit 0
export SLURM_CONF=$SLURM_HOME/slurm.conf

alive() {
  local pid
  [ -s "$1" ] && pid=$(cat "$1" 2>/dev/null) && [ -r "/proc/$pid/stat" ] &&
    [ "$(sed 's/.*) //; s/ .*//' "/proc/$pid/stat")" != Z ] &&
    grep -qE '^(munged|slurmctld|slurmd|slurmdbd|mariadbd)$' "/proc/$pid/comm"
}

if alive slurmctld.pid; then # the jobs first, in order
  timeout 5 scancel --full --signal=KILL --user="$(id -un)" 2>/dev/null
  timeout 5 scancel --user="$(id -un)" 2>/dev/null
  for _ in $(seq 20); do [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
fi
for pid in slurmd.*.pid slurmctld.pid slurmdbd.pid mysql.pid munge/pid; do
  alive "$pid" || continue
  kill "$(cat "$pid")" 2>/dev/null
  for _ in $(seq 50); do alive "$pid" || break; sleep 0.1; done
  rm -f "$pid"
done
# All that is left: what did not end in time, and jobs whose slurmctld or slurmd was gone before them.
for process in /proc/[0-9]*; do
  environment=$(tr '\0' '\n' < "$process/environ") || continue
  case "$(cat "$process/comm")" in
    munged | mariadbd | slurm*) grep -qxFe "SLURM_HOME=$SLURM_HOME" -e "SLURM_CONF=$SLURM_CONF" <<< "$environment" ;;
    *) grep -qxF "SLURM_CONF=$SLURM_CONF" <<< "$environment" && grep -q '^SLURM_JOB_ID=' <<< "$environment" ;;
  esac && kill -9 "${process#/proc/}"
done 2>/dev/null
if [ "${1:-}" = --purge ]; then cd / && rm -rf "$SLURM_HOME"; fi
exit 0

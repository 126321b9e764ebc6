# shellcheck shell=bash
# What train.sh and inference.sh share: the folders, and places for all that is temporary.
# The image may be read-only, its user may be anyone without a home, and there is no network.

: "${TRAINING_DATA:=/mnt/training_data}"
: "${TRAINING_RESULTS:=/mnt/training_results}"
: "${QUERY_DATA:=/mnt/query_data}"
: "${PREDICTED_DATA:=/mnt/predicted_data}"
SUBMISSION=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() {
    echo "error: $*" >&2
    exit 2
}

# A folder of this user alone, in the first place that it may write to.
scratch=
for place in "${TMPDIR:-/tmp}" /tmp /dev/shm /var/tmp "$TRAINING_RESULTS"; do
    folder=$place/greenseg-$(id -u)
    mkdir -m 700 "$folder" 2>/dev/null || true
    if [ -d "$folder" ] && [ -O "$folder" ] && [ -w "$folder" ] && [ ! -L "$folder" ]; then
        scratch=$folder
        break
    fi
done
[ -n "$scratch" ] || fail "no folder for temporary files: none of ${TMPDIR:-/tmp}, /dev/shm, $TRAINING_RESULTS is writable"
mkdir -p "$scratch/tmp"

export TMPDIR=$scratch/tmp
export GREENSEG_CACHE=${GREENSEG_CACHE:-$scratch/cache}
export XDG_CACHE_HOME=$scratch/cache XDG_CONFIG_HOME=$scratch/config MPLCONFIGDIR=$scratch/matplotlib
export TORCH_HOME=$scratch/torch TORCHINDUCTOR_CACHE_DIR=$scratch/inductor TRITON_CACHE_DIR=$scratch/triton
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 HF_HOME=$scratch/huggingface
if [ -d "$SUBMISSION/weights" ]; then
    export HF_HUB_CACHE=$SUBMISSION/weights
fi
if [ ! -w "${HOME:-/nowhere}" ]; then
    export HOME=$scratch
fi
export USER=${USER:-greenseg} LOGNAME=${LOGNAME:-greenseg} # an identity without an entry in /etc/passwd has no name
export PYTHONDONTWRITEBYTECODE=1

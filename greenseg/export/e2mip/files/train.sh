#!/usr/bin/env bash
# Trains the network of config.yaml on TRAINING_DATA into TRAINING_RESULTS, and prints its Dice and joules.
# The same call continues an interrupted training, and shows a finished one. Any failure gives an exit code above 0.
set -euo pipefail
# shellcheck source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[ -d "$TRAINING_DATA" ] || fail "$TRAINING_DATA: no such folder; mount the training data there"
mkdir -p "$TRAINING_RESULTS"

# In place of this shell, so that it gets the signals of `docker stop`.
exec greenseg train --config "$SUBMISSION/config.yaml" --data "$TRAINING_DATA" --out "$TRAINING_RESULTS"

#!/usr/bin/env bash
# Predicts a mask X_maskpred.nii.gz in PREDICTED_DATA for each volume X.nii.gz in QUERY_DATA, with the network that
# train.sh left in TRAINING_RESULTS. It needs no training data. Any failure gives an exit code above 0.
set -euo pipefail
# shellcheck source=environment.sh
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[ -d "$QUERY_DATA" ] || fail "$QUERY_DATA: no such folder; mount the volumes there"

# The run that was trained last: usually there is only one.
run=
for record in "$TRAINING_RESULTS"/train/*/run.json; do
    if [ -f "$record" ] && { [ -z "$run" ] || [ "$record" -nt "$run/run.json" ]; }; then
        run=${record%/run.json}
    fi
done
[ -n "$run" ] || fail "$TRAINING_RESULTS: has no trained network; call train.sh first"

# The volumes are in the folder itself, or in one below it.
volumes=$QUERY_DATA
for below in test_volume test_data testing_data images; do
    if [ -d "$volumes/$below" ]; then
        volumes=$volumes/$below
    fi
done

# PREDICTED_DATA gets masks and nothing else, so the record of the prediction stays in a folder of this call.
work=$(mktemp -d "$scratch/predicted.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/query" "$work/predicted"
ln -s "$(cd "$volumes" && pwd)" "$work/query/images"
code=0 # layout e2mip takes names as they are: in nnU-Net's, img_0000 would be the first channel of img
greenseg predict "$run" --input "$work/query" --layout e2mip --output "$work/predicted" --suffix maskpred || code=$?

mkdir -p "$PREDICTED_DATA"
for mask in "$work"/predicted/*_maskpred.*; do
    if [ -f "$mask" ]; then # if a volume failed, the others still get their masks
        name=${mask##*/}
        cp "$mask" "$PREDICTED_DATA/.$name.tmp"
        mv -f "$PREDICTED_DATA/.$name.tmp" "$PREDICTED_DATA/$name"
    fi
done
if [ -f "$work/predicted/predictions.jsonl" ]; then
    python3 "$SUBMISSION/figures.py" "$run" "$work/predicted/predictions.jsonl" "$TRAINING_RESULTS/inference.json" ||
        echo "note: the masks are written, the figures are not" >&2
fi
echo "masks                $PREDICTED_DATA"
exit "$code"

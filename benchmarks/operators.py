"""Where the time of a call goes, by kind of operator, as ONNX Runtime's own profiler tells it."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from slimline.predictor import Arrays

REPEATS = 30
LEAST = 0.02  # of the whole: a kind below it is counted among the others
OTHERS = "others"


def microseconds(model: Path, batches: Sequence[Arrays], threads: int) -> dict[str, float]:
    """Return {kind of operator: microseconds of a call}, the longest first, the mean over ``batches``.

    The profiler costs time too, so the sum is more than a call takes without it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        for batch in batches:  # the first call of a shape allocates
            session.run(None, batch)
        warm = len(batches)
        for _ in range(REPEATS):
            for batch in batches:
                session.run(None, batch)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    starts = sorted(each["ts"] for each in events if each["name"] == "model_run")
    spent: dict[str, float] = defaultdict(float)
    for each in events:
        if each.get("cat") == "Node" and each["name"].endswith("kernel_time") and each["ts"] >= starts[warm]:
            spent[each["args"]["op_name"]] += each["dur"]
    whole = sum(spent.values())
    calls = REPEATS * len(batches)
    shown = {name: took for name, took in spent.items() if took >= LEAST * whole}
    rest = whole - sum(shown.values())
    ranked = sorted(shown.items(), key=lambda each: -each[1])
    return {name: round(took / calls, 2) for name, took in [*ranked, (OTHERS, rest)]}

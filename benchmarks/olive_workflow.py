"""What Microsoft's Olive makes of an ONNX file, by the passes that its documentation names for CPUs.

An encoder: its fusions for transformers, then dynamic int8; any other net: its peephole optimizer, then static QDQ on
the calibration rows. Olive reads this file too, for the data set that is registered in it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("OLIVE_DISABLE_TELEMETRY", "1")  # before it is imported

from olive.data.registry import Registry
from olive.workflows import run

from slimline import manifest
from slimline.artifact import ASSETS, FOLDER
from slimline.pipeline import ROOT
from slimline.stage import Stage

Rows = dict[str, NDArray[Any]]
LOCAL = {
    "type": "LocalSystem",
    "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}],
}


@Registry.register_dataset()
def saved_rows(path: str, **_: Any) -> list[tuple[Rows, int]]:
    """Return the rows of an npz file, each with a label that nothing reads."""
    with np.load(path) as held:
        arrays = {name: held[name] for name in held.files}
    count = len(next(iter(arrays.values())))
    return [({name: array[row] for name, array in arrays.items()}, 0) for row in range(count)]


def compressed(stage: Stage, source: Path, target: Path) -> None:
    """Write what Olive makes of the teacher, whose ONNX file is ``source``."""
    if stage.params.task.name == "text":
        shape = manifest.read_json(FOLDER / ROOT / ASSETS / "config.json")
        encoder(source, target, shape["num_attention_heads"], shape["hidden_size"])
    else:
        static(source, target, dict(stage.splits["calibration"].inputs))


def encoder(source: Path, target: Path, heads: int, hidden: int) -> None:
    """Write a BERT-like encoder with ``heads`` attention heads and ``hidden`` features, fused and in dynamic int8."""
    fused = {"type": "OrtTransformersOptimization", "model_type": "bert", "num_heads": heads, "hidden_size": hidden}
    _run(source, target, {"optimize": fused, "quantize": {"type": "OnnxDynamicQuantization"}})


def static(source: Path, target: Path, rows: Rows) -> None:
    """Write any net in static int8, calibrated on ``rows``."""
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, **rows)  # type: ignore[arg-type]
        file.flush()
        data = {
            "name": "calibration", "type": "DataContainer", "user_script": __file__,
            "load_dataset_config": {"type": "saved_rows", "params": {"path": file.name}},
            "pre_process_data_config": {"type": "skip_pre_process"},
            "post_process_data_config": {"type": "skip_post_process"},
            "dataloader_config": {"params": {"batch_size": 1, "shuffle": False}},
        }  # fmt: skip
        quantize = {"type": "OnnxStaticQuantization", "data_config": "calibration"}
        _run(source, target, {"optimize": {"type": "OnnxPeepholeOptimizer"}, "quantize": quantize}, data_configs=[data])


def _run(source: Path, target: Path, passes: dict[str, Any], **more: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(
            {
                "input_model": {"type": "OnnxModel", "model_path": str(source.resolve())},
                "systems": {"local": LOCAL}, "host": "local", "target": "local", "passes": passes,
                "output_dir": folder, "cache_dir": f"{folder}/cache", "log_severity_level": 3,
                "evaluate_input_model": False,
            } | more
        )  # fmt: skip
        shutil.copy(Path(folder, "model.onnx"), target)

"""Export one stage's model: artifacts/STAGE -> exports/STAGE, checked against torch on real samples."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from slimline import manifest, metrics, plugins, preprocess, runtime_choice
from slimline.errors import ExportError
from slimline.export import formats, layer_facts
from slimline.export.facts import count_macs, count_params, variant
from slimline.stage import Stage, run

FOLDER = Path("exports")


def main(stage: Stage) -> None:
    """Write the model in every format of params.yaml's ``export``, with signature, preprocessing and facts."""
    name = stage.name
    model, described, digest = stage.load(name)
    signature = stage.task.signature()
    metadata = {"slimline.stage": name, "slimline.artifact": digest, "slimline.task": stage.params.task.name}
    with manifest.sealed(FOLDER / name) as scratch:
        made = {
            each: exporter(model, signature, scratch, metadata)
            for each, exporter in formats.exporters(stage.params.export, stage.params.target).items()
        }
        manifest.write_json(scratch / "signature.json", signature)
        preprocess.write(stage.task.preprocess(), scratch)
        facts: dict[str, Any] = {
            "format": 1,
            "stage": name,
            "artifact": digest,
            "parent": described.parent,
            "params": count_params(model),
            "macs": count_macs(model, signature),
            "bytes": (scratch / "model.onnx").stat().st_size,
            "variant": variant(model),
            "edits": [edit.method for edit in described.edits],
            "parity": parity(model, scratch, stage),
        }
        layers = layer_facts.describe(model, stage.splits["validation"], scratch / "model.onnx", signature)
        facts |= layer_facts.summary(layers["layers"])
        # one line: histograms are hundreds of numbers
        manifest.write_text(scratch / layer_facts.FILE, manifest.canonical(layers).decode() + "\n")
        if others := {each: written for each, written in made.items() if written}:
            facts["formats"] = formats.complete(others, scratch, model, stage.task, stage.splits["validation"])
        manifest.write_json(scratch / "facts.json", facts)
    print(f"{name}: {facts['bytes']:,} bytes, {facts['parity']}")
    for each, written in facts.get("formats", {}).items():
        print(f"{name}: {each}: {formats.describe(written, stage.task.primary)}")


def parity(model: nn.Module, scratch: Path, stage: Stage) -> dict[str, float]:
    """Return how the runtime's outputs compare with torch's on validation rows; too far apart is an ExportError."""
    rows = stage.splits["validation"].head(stage.params.export.samples)
    expected = metrics.outputs(model, rows)
    runtime = plugins.find("runtimes", runtime_choice.default(stage.params.target.runtime))(scratch, 1)
    (found,) = runtime.run({name: np.asarray(array) for name, array in rows.inputs.items()}).values()
    runtime.close()
    agreement = float(np.mean(stage.task.agree(stage.task.answer(expected), stage.task.answer(found))))
    error = float(np.abs(expected - found).max())
    if not agreement >= stage.params.export.min_agreement:
        raise ExportError(
            f"exports/{stage.name}: answers agree with torch on {agreement:.2%} of {len(rows)} rows, "
            f"params.yaml: export.min_agreement is {stage.params.export.min_agreement:.2%}; max error {error:.3g}"
        )
    return {"agreement": agreement, "max_error": error, "rows": len(rows)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("stage")
    options, sys.argv[1:] = parser.parse_known_args()
    run(options.stage, main, timed_as=f"export@{options.stage}")

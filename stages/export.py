"""Export one stage's model: artifacts/STAGE -> exports/STAGE, checked against torch on real samples."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from slimline import manifest, measure, metrics, preprocess, progress
from slimline.errors import ExportError
from slimline.export import formats, layer_facts
from slimline.export.facts import count_macs, count_params, variant
from slimline.pipeline import EXPORTS
from slimline.stage import Stage, run
from slimline.task import Split


def main(stage: Stage) -> None:
    """Write the model in every format of params.yaml's ``export``, with signature, preprocessing and facts."""
    name = stage.name
    model, described, digest = stage.load(name)
    signature = stage.task.signature()
    metadata = {"slimline.stage": name, "slimline.artifact": digest, "slimline.task": stage.params.task.name}
    exporters = formats.exporters(stage.params.export, stage.params.target)
    with manifest.sealed(EXPORTS / name) as scratch, progress.steps(f"export {name}", len(exporters) + 4) as begin:
        made = {}
        for each, exporter in exporters.items():
            begin(each)
            made[each] = exporter(model, signature, scratch, metadata)
        begin("decision on validation rows")
        signature = {**signature, **decision(scratch, stage)}
        manifest.write_json(scratch / "signature.json", signature)
        preprocess.write(stage.task.preprocess(), scratch)
        begin("answers beside torch's")
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
            "parity": parity(model, scratch, stage, signature),
        }
        begin("facts of layers")
        layers = layer_facts.describe(model, stage.splits["validation"], scratch / "model.onnx", signature)
        facts |= layer_facts.summary(layers["layers"])
        # one line: histograms are hundreds of numbers
        manifest.write_text(scratch / layer_facts.FILE, manifest.canonical(layers).decode() + "\n")
        begin("answers of other formats")
        if others := {each: written for each, written in made.items() if written}:
            facts["formats"] = formats.complete(
                others, scratch, model, stage.task, stage.splits["validation"], signature
            )
        manifest.write_json(scratch / "facts.json", facts)
    print(f"{name}: {facts['bytes']:,} bytes, {beside_torch(facts['parity'])}")
    for each, written in facts.get("formats", {}).items():
        print(f"{name}: {each}: {formats.describe(written, stage.task.primary)}")


def parity(model: nn.Module, scratch: Path, stage: Stage, signature: Mapping[str, Any]) -> dict[str, float]:
    """Return how the runtime's outputs compare with torch's on validation rows; too far apart is an ExportError."""
    rows = stage.splits["validation"].head(stage.params.export.samples)
    expected = metrics.outputs(model, rows)
    found = answered(scratch, stage, rows)
    answers = (stage.task.answer(stage.task.decided(out, signature)) for out in (expected, found))
    agreement = float(np.mean(stage.task.agree(*answers)))
    error = float(np.abs(expected - found).max())
    if not agreement >= stage.params.export.min_agreement:
        raise ExportError(
            f"exports/{stage.name}: answers agree with torch on {agreement:.2%} of {len(rows)} rows, "
            f"params.yaml: export.min_agreement is {stage.params.export.min_agreement:.2%}; max error {error:.3g}"
        )
    return {"agreement": agreement, "max_error": error, "rows": len(rows)}


def beside_torch(found: Mapping[str, float]) -> str:
    """Return what ``parity`` found in words."""
    return (
        f"answers agree with torch on {found['agreement']:.2%} of {found['rows']:,} validation rows, outputs differ by "
        f"{found['max_error']:.2g} at most"
    )


def decision(scratch: Path, stage: Stage) -> dict[str, Any]:
    """Return what the exported model's outputs on validation rows teach of answers, where the task asks for it."""
    if not stage.task.decides:
        return {}
    rows = stage.splits["validation"]
    return stage.task.decision(answered(scratch, stage, rows), rows.targets)


def answered(scratch: Path, stage: Stage, rows: Split) -> NDArray[Any]:
    """Return the first output of the exported model for ``rows``, by the target's runtime.

    Outputs that aren't finite are an ExportError.
    """
    out = measure.outputs(scratch, rows, stage.params.target)
    wild = int((~np.isfinite(out.reshape(len(out), -1)).all(axis=1)).sum())
    if wild:
        raise ExportError(
            f"exports/{stage.name}/model.onnx: outputs of {wild} of {len(out)} validation rows are not finite numbers: "
            f"look at the ranges and weights of artifacts/{stage.name}"
        )
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("stage")
    options, sys.argv[1:] = parser.parse_known_args()
    run(options.stage, main, timed_as=f"export@{options.stage}")

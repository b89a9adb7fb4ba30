"""Would attention's own products (Q·Kᵀ and P·V) pay in integers? A MiniLM-shaped encoder, int8 by static ranges.

python benchmarks/attention.py: the exported file as it is, and with QuantizeLinear → DequantizeLinear on both inputs
of each of these products, which ONNX Runtime fuses to QLinearMatMul and MatMulIntegerToFloat. What stands on the right
(Kᵀ, V) is unsigned or signed: kernels of u8·u8 and of u8·s8 differ. Weights are random: the clock doesn't see them.
Timed in turns, in time of the processor, all threads added; ratios are paired within a round. Written to
metrics/attention.json; lengths and threads that aren't measured anew stay.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from memory import SIGNATURE, WORDS, encoder
from onnx import helper, numpy_helper

from slimline import benchmark, latency, manifest
from slimline.decisions import Decisions
from slimline.export.onnx import to_onnx
from slimline.method import Context, compress
from slimline.methods.linear import Linear
from slimline.params import Target
from slimline.runtimes.onnxruntime import OnnxRuntime

OUT = Path("metrics/attention.json")
SIZE = "MiniLM-L6"
LENGTHS, BATCH_SIZES, THREADS = (32, 64, 128, 256, 384, 512), (1, 8), (1, 2)
ROUNDS, REPEATS = 21, 4
CONFIDENCE = 0.95
FLOATS = "floats"
Grid = tuple[np.float32, np.uint8 | np.int8]  # scale and zero point
SHARES: Grid = (np.float32(1 / 255), np.uint8(0))  # of what Softmax gives
VALUES: dict[str, Grid] = {
    "u8·u8": (np.float32(0.05), np.uint8(128)),
    "u8·s8": (np.float32(0.05), np.int8(0)),
}  # of what stands on the right, by the kernel it asks for


def static(folder: Path) -> Any:
    """Return the ONNX model of a six-layer encoder with static ranges."""
    model = encoder(SIZE, folder)
    nothing: Any = None
    context = Context(nothing, nothing, nothing, Target(), Decisions(None, {}), where="benchmark")
    rows = [({"input_ids": torch.randint(1, WORDS, (4, 64))}, torch.zeros(4))]
    return to_onnx(compress(Linear(), model, lambda: rows, context)[0], SIGNATURE)


def in_integers(model: Any, right: Grid) -> Any:
    """Return a copy whose products of two activations read rounded ones, ``right`` those on the right."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    constants = {each.name for each in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}

    def is_weight(name: str) -> bool:
        maker = makers.get(name)
        return name in constants or (maker is not None and all(is_weight(each) for each in maker.input))

    nodes = []
    for node in graph.node:
        if node.op_type == "MatMul" and not any(map(is_weight, node.input)):
            left = SHARES if makers[node.input[0]].op_type == "Softmax" else VALUES["u8·u8"]
            for at, (name, grid) in enumerate(zip(list(node.input), (left, right), strict=True)):
                node.input[at] = f"{node.output[0]}.{at}"
                held = [f"{node.input[at]}.{each}" for each in ("scale", "zero")]
                graph.initializer.extend(map(numpy_helper.from_array, map(np.asarray, grid), held))
                nodes.append(helper.make_node("QuantizeLinear", [name, *held], [f"{node.input[at]}.q"]))
                nodes.append(helper.make_node("DequantizeLinear", [f"{node.input[at]}.q", *held], [node.input[at]]))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def kinds(folder: Path) -> Counter[str]:
    """Return how many nodes of each operator ONNX Runtime runs of ``folder``'s model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "optimized.onnx"), 3
    onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def measured(folders: dict[str, Path], length: int, threads: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Return {batch size: {ms, speedup and speedup_ci over floats, each by variant}} at one length."""
    rng = np.random.default_rng(0)
    inputs = {batch: {"input_ids": rng.integers(1, WORDS, (batch, length))} for batch in BATCH_SIZES}
    runtimes = {name: OnnxRuntime(folder, threads) for name, folder in folders.items()}
    models = {name: each.run for name, each in runtimes.items()}
    samples = latency.measure(models, inputs, rounds=rounds, repeats=REPEATS, clock=time.process_time)
    for each in runtimes.values():
        each.close()
    found = latency.table(samples, FLOATS, CONFIDENCE)
    return {
        str(batch): {
            "ms": {name: row["latency_ms"][str(batch)]["p50"] for name, row in found.items()},
            **{key: {name: found[name][key][str(batch)] for name in VALUES} for key in ("speedup", "speedup_ci")},
        }
        for batch in BATCH_SIZES
    }


def main() -> None:
    """Measure each length and number of threads, and write metrics/attention.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = static(Path(scratch))
        models = {FLOATS: model, **{name: in_integers(model, grid) for name, grid in VALUES.items()}}
        folders = {name: Path(scratch, str(at)) for at, name in enumerate(models)}
        for name, folder in folders.items():
            folder.mkdir()
            onnx.save(models[name], folder / "model.onnx")
        plain = kinds(folders[FLOATS])
        fused = {name: dict(kinds(folders[name]) - plain) for name in VALUES}
        print(f"operators more: {fused}", flush=True)
        places = manifest.read_json(options.out)["places"] if options.out.is_file() else {}
        facts = {"format": 1, "machine": benchmark.machine(), "model": SIZE, "operators": fused}
        for length, threads in product(options.lengths, options.threads):
            for batch, row in measured(folders, length, threads, options.rounds).items():
                places.setdefault(f"b{batch}/t{threads}", {})[str(length)] = row
                shown = ", ".join(
                    "{} {:.2f}x [{:.2f}, {:.2f}]".format(name, row["speedup"][name], *row["speedup_ci"][name])
                    for name in VALUES
                )
                print(f"{length} tokens, b{batch}/t{threads}: {row['ms'][FLOATS]:.2f} ms, {shown}", flush=True)
            manifest.write_json(options.out, {**facts, "places": places})


if __name__ == "__main__":
    main()

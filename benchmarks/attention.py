"""Would attention's own products (Q·Kᵀ and P·V) pay in integers? A MiniLM-shaped encoder, int8 by static ranges, twice.

python benchmarks/attention.py: the exported file as it is, and with QuantizeLinear → DequantizeLinear on both inputs
of each of these products, which ONNX Runtime fuses to QLinearMatMul and MatMulIntegerToFloat. Weights are random: the
clock doesn't see them. Timed in turns on one thread, in time of the processor; the ratio's median and quartiles are
printed.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from memory import SIGNATURE, encoder
from onnx import helper, numpy_helper

from slimline.decisions import Decisions
from slimline.export.onnx import to_onnx
from slimline.method import Context, compress
from slimline.methods.linear import Linear
from slimline.params import Target

SHAPES = [(1, 64), (8, 64), (1, 128), (8, 128)]
ROUNDS = 25
SHARES = (1 / 255, 0)  # scale and zero point of what Softmax gives
VALUES = (0.05, 128)


def static(folder: Path) -> Any:
    """Return the ONNX model of a six-layer encoder with static ranges."""
    model = encoder("MiniLM-L6", folder)
    nothing: Any = None
    context = Context(nothing, nothing, nothing, Target(), Decisions(None, {}), where="benchmark")
    rows = [({"input_ids": torch.randint(1, 30522, (4, 64))}, torch.zeros(4))]
    return to_onnx(compress(Linear(), model, lambda: rows, context)[0], SIGNATURE)


def in_integers(model: Any) -> Any:
    """Return a copy whose products of two activations read rounded ones."""
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
            for at, name in enumerate(list(node.input)):
                scale, zero = SHARES if makers[name].op_type == "Softmax" else VALUES
                grid = [f"{node.output[0]}.{at}.{each}" for each in ("scale", "zero")]
                for each, value in zip(grid, (np.float32(scale), np.uint8(zero)), strict=True):
                    graph.initializer.append(numpy_helper.from_array(np.asarray(value), each))
                node.input[at] = f"{node.output[0]}.{at}"
                nodes.append(helper.make_node("QuantizeLinear", [name, *grid], [f"{node.input[at]}.q"]))
                nodes.append(helper.make_node("DequantizeLinear", [f"{node.input[at]}.q", *grid], [node.input[at]]))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return changed


def session(model: Any, optimized: Path) -> onnxruntime.InferenceSession:
    """Return a session on one thread that writes what it runs to ``optimized``."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.optimized_model_filepath, options.log_severity_level = str(optimized), 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Print how many products fused, and the ratios."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = static(folder)
        sessions = [session(each, folder / f"{at}.onnx") for at, each in enumerate((model, in_integers(model)))]
        kinds = [Counter(node.op_type for node in onnx.load(folder / f"{at}.onnx").graph.node) for at in (0, 1)]
    print(f"in integers: {dict(kinds[1] - kinds[0])}")
    for batch, length in SHAPES:
        ids = {"input_ids": np.random.default_rng(0).integers(1, 30522, (batch, length))}
        seconds = np.zeros((ROUNDS, 2))
        for each in sessions:
            each.run(None, ids)
        for row in seconds:
            for at, each in enumerate(sessions):
                started = time.process_time()
                each.run(None, ids)
                row[at] = time.process_time() - started
        low, middle, high = np.percentile(seconds[:, 0] / seconds[:, 1], [25, 50, 75])
        before, after = 1e3 * np.median(seconds, axis=0)
        print(f"{batch} × {length}: {before:.2f} ms, {after:.2f} ms: {middle:.3f}× [{low:.3f}, {high:.3f}]", flush=True)


if __name__ == "__main__":
    main()
